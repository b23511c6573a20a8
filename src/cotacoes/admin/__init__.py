"""What an operator runs: migrations, the directory, moves and purges, the audit."""
