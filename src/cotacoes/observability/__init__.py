"""Logs, metrics and traces, and the output that never holds up its writer."""
