"""client_subscriber: a console subscriber that notices every loss and recovers it."""
