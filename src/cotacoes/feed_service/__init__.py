"""feed_service: follows exchanges over WebSockets, and agrees on one price for each coin."""
