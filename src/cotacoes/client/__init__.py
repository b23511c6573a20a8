"""The Python client of the HTTP routes; imports no service."""
