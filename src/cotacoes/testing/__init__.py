"""Memory twins of what the system stands on: a bus, a shard, the moves of coins; for tests, ours and yours."""
