"""The local log of quotes: SQLite, written before anything else."""
