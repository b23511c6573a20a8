-- name: schema_version
-- The highest migration applied to this database and its name as a shard; fails if it is not a shard yet.
SELECT max(version) AS version, (SELECT name FROM identity) AS name FROM schema_migration;

-- name: is_read_only
-- Whether this database refuses writes, as a standby does, or one that is set to read-only.
SELECT current_setting('transaction_read_only')::boolean AS is_read_only;

-- name: migrations
-- Every migration applied to this database, in order.
SELECT version, name, sha256 FROM schema_migration ORDER BY version;

-- name: create_migration_table
-- Create the table of the migrations applied to this database, with the digest of each file.
CREATE TABLE IF NOT EXISTS schema_migration (
    version integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: note_migration
-- Remember a migration: version, name, digest.
INSERT INTO schema_migration (version, name, sha256) VALUES ($1, $2, $3);

-- name: lock_migration
-- Acquire the lock of migrations until the transaction ends; false if another one holds it.
SELECT pg_try_advisory_xact_lock(hashtext('cotacoes.migrate')) AS is_ours;

-- name: can_be_identified
-- Whether this database has the table that names its shard.
SELECT to_regclass('identity') IS NOT NULL AS is_there;

-- name: identity
-- The name of this database as a shard; no row if it is not a shard yet.
SELECT name FROM identity;

-- name: identify
-- Name this database as a shard, unless it has a name.
INSERT INTO identity (name) VALUES ($1) ON CONFLICT DO NOTHING;

-- name: directory
-- The home of every coin, in the order of their ids.
SELECT coin, coin_id, shard, placement, kind FROM directory ORDER BY coin_id;

-- name: shards
-- The shards that are not settings.
SELECT name, dsn FROM shard ORDER BY name;

-- name: add_shard
-- Remember a shard: name, DSN.
INSERT INTO shard (name, dsn) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET dsn = excluded.dsn;

-- name: seed_fence
-- Open the fence of a coin on its shard, unless it exists: id, coin, placement.
INSERT INTO fence (coin_id, coin, placement) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;

-- name: missing_days
-- The days of a range, both ends included, that have no partition.
SELECT day::date AS day FROM generate_series($1::date, $2::date, '1 day') AS day
WHERE NOT EXISTS (
    SELECT FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'quote'::regclass AND c.relname = 'quote_' || to_char(day, 'YYYYMMDD')
);

-- name: newest_at
-- When the newest quote of all coins was recorded; null if there is none.
SELECT max(last_at) AS newest_at FROM fence;

-- name: fences
-- Every fence of this shard.
SELECT coin_id, coin, placement, state, moved_to FROM fence ORDER BY coin_id;

-- name: add_coin
-- Place a new coin: coin, shard; no row if it is placed already.
INSERT INTO directory (coin, coin_id, shard, placement)
VALUES ($1, (SELECT coalesce(max(coin_id), 0) + 1 FROM directory), $2, 1)
ON CONFLICT (coin) DO NOTHING RETURNING coin_id;

-- name: add_series
-- Place the series of a venue: its name, shard, currency; no row if the name is placed already.
INSERT INTO directory (coin, coin_id, shard, placement, currency, kind)
VALUES ($1, (SELECT coalesce(max(coin_id), 0) + 1 FROM directory), $2, 1, $3, 'venue')
ON CONFLICT (coin) DO NOTHING RETURNING coin_id;

-- name: forget_coin
-- Undo add_coin for a coin that got no fence: coin, id.
DELETE FROM directory WHERE coin = $1 AND coin_id = $2 AND placement = 1;

-- name: set_home
-- Write where a coin lives, as its fences say: coin, id, shard, placement, and its kind if it is new; a row if that is news.
INSERT INTO directory AS d (coin, coin_id, shard, placement, kind) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (coin) DO UPDATE SET coin_id = excluded.coin_id, shard = excluded.shard, placement = excluded.placement
WHERE (d.coin_id, d.shard, d.placement) <> (excluded.coin_id, excluded.shard, excluded.placement)
RETURNING coin;

-- name: set_retention
-- Set for how many days a coin's quotes are retained, null for ever: coin, days; no row if there is no such coin.
UPDATE directory SET retention_days = $2 WHERE coin = $1 RETURNING coin;

-- name: learn_currency
-- Note the currency of a coin that has none yet: coin, currency.
UPDATE directory SET currency = $2 WHERE coin = $1 AND currency IS NULL;

-- name: set_currency
-- Set the currency of a coin's prices: coin, currency; no row if there is no such coin.
UPDATE directory SET currency = $2 WHERE coin = $1 RETURNING coin;

-- name: lock_directory
-- Acquire the lock of the directory until the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('cotacoes.directory'));
