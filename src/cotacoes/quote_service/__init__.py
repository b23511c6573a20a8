"""quote_service: fetches, validates, records, delivers and publishes quotes, and answers questions about them."""
