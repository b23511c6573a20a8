"""`cotacoes doctor`: what is wrong with this machine, data folder or system, and the command that fixes it.

examine the machine ┐
query the system    ┴▶ Facts ──▶ CHECKS, a table of pure functions ──▶ findings

Everything that gathers facts has a deadline and changes nothing: it makes no folder, starts and migrates nothing, and
writes no test value. The checks use neither network nor disk; that something did not answer in time is also a fact.
"""
