"""The venues: one file each, which knows the venue's protocol and nothing else. `venue.py` says what a file gives."""
