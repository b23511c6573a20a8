"""Sharding by directory: where each coin lives, who may write it, how it moves, what an audit holds against what."""
