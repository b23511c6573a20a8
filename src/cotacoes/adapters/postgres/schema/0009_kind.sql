-- Besides the coins, the directory names the series of venues: one venue's price of a coin, `bitcoin-kraken`. Only this tells
-- them apart. A series has a home, positions and a history like a coin, and no list shows it unless it is asked for.

ALTER TABLE directory ADD kind text NOT NULL DEFAULT 'coin' CHECK (kind IN ('coin', 'venue'));
