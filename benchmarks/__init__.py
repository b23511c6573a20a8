"""The figures of `make bench`: each measured on the system as `cotacoes up` starts it, on loopback only."""
