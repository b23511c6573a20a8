"""Scatter/gather: many questions asked at once, and one answer that names what is missing."""
