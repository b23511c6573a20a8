"""Logs, metrics and traces, and output that never blocks its writer."""
