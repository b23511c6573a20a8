"""Who listens on Redis: one consumer turns messages and the history into every quote once, in order."""
