-- name: schema_version
-- The highest migration applied to this database; raises where there is none yet.
SELECT max(version) FROM schema_migration;

-- name: fence
-- What this shard says of one coin, with its newest quote; no row where the coin does not live here.
SELECT f.placement, f.writer_epoch, f.floor_epoch, f.floor_seq,
    q.epoch, q.seq, q.at, q.observed_at, q.price::text AS price, o.name AS origin, o.currency, q.prev_epoch, q.prev_seq
FROM fence AS f
LEFT JOIN quote AS q ON q.coin_id = f.coin_id AND q.epoch = f.last_epoch AND q.seq = f.last_seq
LEFT JOIN origin AS o USING (origin_id)
WHERE f.coin = $1;

-- name: become_writer
-- Take the coin over: coin, epoch, writer.
SELECT become_writer($1, $2, $3);

-- name: append
-- Store one batch: coin, placement, writer's epoch, then one array per column.
SELECT append_quotes($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12);

-- name: after
-- The quotes of a coin after a position, ascending: coin, epoch, seq, limit.
SELECT q.epoch, q.seq, q.at, q.observed_at, q.price::text AS price, o.name AS origin, o.currency, q.prev_epoch, q.prev_seq
FROM quote AS q
JOIN origin AS o USING (origin_id)
WHERE q.coin_id = (SELECT coin_id FROM fence WHERE coin = $1) AND (q.epoch, q.seq) > ($2, $3)
ORDER BY q.epoch, q.seq
LIMIT $4;

-- name: newest
-- The newest quotes of several coins, ascending within each, and the coin's last position: coins, count.
SELECT f.coin, f.last_epoch, f.last_seq, r.*
FROM fence AS f
LEFT JOIN LATERAL (
    SELECT q.epoch, q.seq, q.at, q.observed_at, q.price::text AS price, o.name AS origin, o.currency, q.prev_epoch, q.prev_seq
    FROM quote AS q
    JOIN origin AS o USING (origin_id)
    WHERE q.coin_id = f.coin_id
    ORDER BY q.epoch DESC, q.seq DESC
    LIMIT $2
) AS r ON true
WHERE f.coin = ANY ($1::text[])
ORDER BY f.coin, r.epoch, r.seq;

-- name: prepare_days
-- Make the partitions of a range of days, both ends included.
SELECT prepare_day(day::date) FROM generate_series($1::date, $2::date, '1 day') AS day;

-- name: missing_days
-- The days of a range, both ends included, that have no partition.
SELECT day::date AS day FROM generate_series($1::date, $2::date, '1 day') AS day
WHERE NOT EXISTS (
    SELECT FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'quote'::regclass AND c.relname = 'quote_' || to_char(day, 'YYYYMMDD')
);

-- name: newest_at
-- When the newest quote of all coins was recorded; null where there is none.
SELECT max(q.at) AS newest_at
FROM fence AS f
JOIN quote AS q ON q.coin_id = f.coin_id AND q.epoch = f.last_epoch AND q.seq = f.last_seq;

-- name: create_migration_table
-- What was applied to this database, with the digest of each file.
CREATE TABLE IF NOT EXISTS schema_migration (
    version integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: migrations
-- Every migration applied here, in order.
SELECT version, name, sha256 FROM schema_migration ORDER BY version;

-- name: note_migration
-- Remember one: version, name, digest.
INSERT INTO schema_migration (version, name, sha256) VALUES ($1, $2, $3);

-- name: lock_migration
-- One migration at a time.
SELECT pg_advisory_xact_lock(hashtext('cotacoes.migrate'));

-- name: directory
-- Every coin, in the order of its id.
SELECT coin, coin_id, shard, placement FROM directory ORDER BY coin_id;

-- name: seed_directory
-- Place a new coin: coin, shard. One that is placed already stays where it is.
INSERT INTO directory (coin, coin_id, shard, placement)
VALUES ($1, (SELECT coalesce(max(coin_id), 0) + 1 FROM directory), $2, 1)
ON CONFLICT (coin) DO NOTHING;

-- name: seed_fence
-- Open the fence of a coin on its shard: id, coin, placement. One that is there stays as it is.
INSERT INTO fence (coin_id, coin, placement) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;
