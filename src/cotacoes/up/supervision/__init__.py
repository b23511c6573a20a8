"""Supervision: processes started in the order of need, kept running, paused, and stopped without an orphan."""
