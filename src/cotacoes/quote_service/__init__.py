"""quote_service: fetch, screen, record, deliver, publish, answer."""
