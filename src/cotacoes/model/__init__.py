"""What a price is: the quote and its position, candles, windows, live messages, answers, coins. Imports only errors."""
