"""The only place that knows a model API: requests go out, events and a finish come back."""
