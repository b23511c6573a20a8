"""The HTTP server: uvicorn and httptools behind an accept loop, limits and refusals of our own."""
