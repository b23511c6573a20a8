"""The four patterns and their companions: pure rules, no network, no framework; clock and random are passed in."""
