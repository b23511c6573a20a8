"""What a price is: quotes and positions, candles, windows, live messages, answers, coins. Imports only errors."""
