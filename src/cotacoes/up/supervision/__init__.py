"""Supervision: processes started in the order of need, kept running, frozen, and stopped without an orphan."""
