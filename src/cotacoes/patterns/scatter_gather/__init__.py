"""Scatter/gather: many questions at the same time, and one answer that names what is missing."""
