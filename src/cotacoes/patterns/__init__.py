"""The four patterns and the consensus, as rules without a network or a framework: clock and randomness are passed in.

resilience       circuit breaker, retry, deadlines and their companions
pub_sub          positions on a channel, what is missing, how it is filled
sharding         the directory, fences, moves of coins, what an audit checks
scatter_gather   many questions at once, whole or in part
consensus        one price from the books of several venues
"""
