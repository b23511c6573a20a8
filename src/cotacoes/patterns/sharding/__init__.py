"""Sharding by directory: the home of each coin, who may write it, how it moves, and what an audit compares."""
