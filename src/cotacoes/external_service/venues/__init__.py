"""The simulated exchanges: real protocols over WebSockets, one seeded market, and faults for each venue."""
