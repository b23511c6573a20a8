"""Pub/Sub with positions: the bus, and a recovery that knows what is missing and fills it from the history."""
