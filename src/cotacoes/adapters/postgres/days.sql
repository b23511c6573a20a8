-- name: limit_statements
-- Let the server itself end a statement after a time, such as 590s.
SELECT set_config('statement_timeout', $1, false);

-- name: acquire
-- Become the process that maintains the days of this shard, while connected; false if another one does.
SELECT pg_try_advisory_lock(hashtext('cotacoes.days'), 0) AS is_acquired;

-- name: prepare
-- Create the partitions of a range of days, both ends included.
SELECT prepare_day(day::date) FROM generate_series($1::date, $2::date, '1 day') AS day;

-- name: closed
-- The days that receive no further quotes and are not sealed, oldest first.
SELECT f.coin, d.day FROM day AS d JOIN fence AS f USING (coin_id)
WHERE f.state = 'open' AND d.sealed_at IS NULL AND f.last_at >= day_end(d.day)
ORDER BY d.day, d.coin_id;

-- name: seal
-- Write a day's manifest: coin, day.
SELECT is_sealed, expected, held FROM seal_day($1, $2);

-- name: expired
-- The sealed days beyond the retention, in the order in which to drop them: coins, and the days to retain of each.
SELECT f.coin, d.day
FROM unnest($1::text[], $2::integer[]) AS r (coin, days) JOIN fence AS f USING (coin) JOIN day AS d USING (coin_id)
WHERE f.state = 'open' AND d.sealed_at IS NOT NULL AND d.dropped_at IS NULL AND utc_day(f.last_at) - d.day > r.days
ORDER BY d.coin_id, d.day;

-- name: drop
-- Drop a day from a coin's history: coin, day, days to retain.
SELECT count, epoch, seq FROM drop_day($1, $2, $3);

-- name: dropped
-- The days that a coin dropped before a time and that still have a partition, oldest first.
SELECT DISTINCT day FROM day WHERE dropped_at < $1 AND to_regclass(partition_of(day)) IS NOT NULL ORDER BY day;

-- name: erase
-- Erase what was dropped before a time: day, time.
SELECT count, is_gone FROM erase_day($1, $2);

-- name: loose
-- The days that ended before a time, sealed for every coin and kept for at least one, whose partition is not packed,
-- oldest first. An index is packed if its fillfactor, which is set last, is 100, and no unfinished one stands beside it.
SELECT d.day
FROM (SELECT day FROM day GROUP BY day HAVING bool_and(sealed_at IS NOT NULL) AND bool_or(dropped_at IS NULL)) AS d
JOIN pg_class AS key ON key.oid = key_of(d.day)
WHERE day_end(d.day) < $1 AND (
    coalesce('fillfactor=100' <> ALL (key.reloptions), true)
    OR EXISTS (SELECT FROM pg_index WHERE indrelid = to_regclass(partition_of(d.day)) AND NOT indisvalid)
)
ORDER BY d.day;

-- name: packing
-- The statements that pack a day, in order, each in a transaction of its own: day. Each can be cut short, and all can be
-- run again: the fillfactor that marks the end is set last, so the index is built with one percent less.
SELECT sql FROM (
    SELECT 1, format('DROP INDEX CONCURRENTLY IF EXISTS %s', indexrelid::regclass)
    FROM pg_index WHERE indrelid = to_regclass(partition_of($1)) AND NOT indisvalid
    UNION ALL SELECT 2, format('ALTER INDEX %s SET (fillfactor = 99)', key_of($1))
    UNION ALL SELECT 3, format('VACUUM (FREEZE, ANALYZE) %I', partition_of($1))
    UNION ALL SELECT 4, format('REINDEX INDEX CONCURRENTLY %s', key_of($1))
    UNION ALL SELECT 5, format('ALTER INDEX %s SET (fillfactor = 100)', key_of($1))
) AS steps (step, sql)
ORDER BY step;
