"""The exit codes of all commands and services."""

OK = 0
FAILURE = 1
USAGE = 2  # wrong arguments or settings; a supervisor does not start the service again
STALE = 3  # `cotacoes quote`: the current quote is stale
UNAVAILABLE = 4  # a command's answer is not available
SUPERSEDED = 4  # quote_service: another writer took over; a supervisor does not start it again
INTERRUPTED = 130  # Ctrl-C, as shells report it
