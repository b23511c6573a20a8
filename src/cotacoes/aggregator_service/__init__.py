"""aggregator_service: one report from everyone, by scatter/gather."""
