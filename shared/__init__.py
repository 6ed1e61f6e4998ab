"""What the API and the workers agree on: ids, events, the log, the record, the queue."""
