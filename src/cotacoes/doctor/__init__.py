"""`cotacoes doctor`: what is wrong with this machine, this data folder or this system, and the command that mends it.

look at the machine ┐
ask the system      ┴▶ Facts ──▶ CHECKS, a table of pure functions ──▶ findings

Whatever looks or asks has a deadline and changes nothing: no folder is made, nothing is started or migrated, no test
value is written. The checks know no network and no disk; what could not be learnt in time is a fact like any other.
"""
