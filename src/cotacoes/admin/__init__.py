"""What an operator runs: migrate."""
