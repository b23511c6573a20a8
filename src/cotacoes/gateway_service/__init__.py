"""gateway_service, the front door: live streams with exact resume, and the answers of quote_service."""
