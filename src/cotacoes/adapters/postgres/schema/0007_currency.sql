-- A coin has one currency: that of its first recorded price, unless an administrator names it. Null: not known yet.
-- What is stored already is not looked through here, since a coin's quotes may lie on another shard: quote_service knows
-- the newest quote of each coin, and writes its currency.

ALTER TABLE directory ADD currency text CHECK (currency ~ '^[A-Z0-9]{2,12}$');
