"""gateway_service: the front door."""
