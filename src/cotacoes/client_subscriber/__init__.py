"""client_subscriber: a console subscriber that knows when it missed something."""
