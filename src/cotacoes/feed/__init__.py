"""Listening on Redis: one consumer turns live messages and the history into every quote once, in order."""
