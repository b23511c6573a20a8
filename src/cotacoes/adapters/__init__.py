"""The only code that imports a network or database library: one library, one file."""
