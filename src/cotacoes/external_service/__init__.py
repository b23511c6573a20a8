"""external_service: the outside world, simulated or recorded, that fails on purpose."""
