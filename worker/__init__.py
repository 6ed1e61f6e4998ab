"""Turns queued generations into logged events."""
