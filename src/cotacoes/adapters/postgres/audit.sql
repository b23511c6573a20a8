-- name: begin
-- One snapshot for all reads. Each day gets a plan of its own, which opens that day's partition only.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL plan_cache_mode = force_custom_plan;

-- name: begin_day
-- Each day is read within a savepoint.
SAVEPOINT day;

-- name: end_day
-- Returning to the savepoint releases the locks on the day's partition and keeps the snapshot: thousands of days do not
-- fill the server's lock table, and sealing or dropping a day does not wait for the end of the audit.
ROLLBACK TO SAVEPOINT day;
RELEASE SAVEPOINT day;

-- name: copies
-- The copy of every coin that has a fence here.
SELECT coin, coin_id, state, placement, moved_to, writer_epoch, writer, floor_epoch, floor_seq, last_epoch, last_seq,
    last_at, now() - changed_at AS age
FROM fence ORDER BY coin_id;

-- name: conflicts
-- How many quotes of each coin arrived with a position that another quote had.
SELECT coin_id, count(*) AS conflicts FROM conflict GROUP BY coin_id;

-- name: orphans
-- How many orphans each coin has, and how many of them are accepted.
SELECT coin_id, count(*) AS orphans, count(accepted_at) AS accepted FROM orphan GROUP BY coin_id;

-- name: holes
-- The holes of a coin, ascending: coin's id.
SELECT next_epoch, next_seq, after_epoch, after_seq, noted_at, accepted_at IS NOT NULL AS is_accepted
FROM hole WHERE coin_id = $1 ORDER BY next_epoch, next_seq;

-- name: partitions
-- The day of every partition, and whether it has the name and the bounds of that day.
SELECT utc_day(b.starts) AS day, c.relname AS name,
    c.relname = partition_of(utc_day(b.starts)) AND b.starts = utc_day(b.starts)::timestamp AT TIME ZONE 'UTC'
        AND b.ends = (utc_day(b.starts) + 1)::timestamp AT TIME ZONE 'UTC' AS is_of_day
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS bound
CROSS JOIN LATERAL (
    SELECT substring(bound FROM $$FROM \('([^']+)'\)$$)::timestamptz,
        substring(bound FROM $$TO \('([^']+)'\)$$)::timestamptz
) AS b (starts, ends)
WHERE i.inhparent = 'quote'::regclass AND bound IS NOT NULL  -- null where it was dropped since
ORDER BY 1;

-- name: coins_of_day
-- The coins that have quotes in a day, by one index lookup each: from, to.
WITH RECURSIVE held AS (
    (SELECT coin_id FROM quote WHERE at >= $1 AND at < $2 ORDER BY coin_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT q.coin_id FROM quote AS q WHERE q.at >= $1 AND q.at < $2 AND q.coin_id > h.coin_id ORDER BY 1 LIMIT 1
    )
    FROM held AS h WHERE h.coin_id IS NOT NULL
)
SELECT coin_id FROM held WHERE coin_id IS NOT NULL;

-- name: coins_beside
-- The coins that have an epoch, a day, a candle or something kept aside.
WITH RECURSIVE candles AS (
    (SELECT coin_id FROM candle ORDER BY coin_id LIMIT 1)
    UNION ALL
    SELECT (SELECT c.coin_id FROM candle AS c WHERE c.coin_id > h.coin_id ORDER BY 1 LIMIT 1)
    FROM candles AS h WHERE h.coin_id IS NOT NULL
)
SELECT coin_id FROM candles WHERE coin_id IS NOT NULL
UNION SELECT coin_id FROM era UNION SELECT coin_id FROM day UNION SELECT coin_id FROM conflict
UNION SELECT coin_id FROM orphan UNION SELECT coin_id FROM hole;

-- name: predecessors
-- The position that each epoch of a coin names before its first one: coin's id.
SELECT epoch, prev_epoch, prev_seq FROM era WHERE coin_id = $1;

-- name: days
-- The day rows of a coin, ascending: coin's id.
SELECT day, first_epoch, first_seq, last_epoch, last_seq, count, sum, digest,
    sealed_at, dropped_at
FROM day WHERE coin_id = $1 ORDER BY day;

-- name: candle_days
-- The days in which a coin has a candle: coin's id.
SELECT DISTINCT utc_day(at) AS day FROM candle WHERE coin_id = $1;

-- name: pieces
-- What a day holds of each epoch: coin's id, from, to.
SELECT q.epoch, min(q.seq) AS first_seq, max(q.seq) AS last_seq, count(*) AS count, max(q.at) AS last_at,
    count(*) FILTER (WHERE o.origin_id IS NULL) AS nameless
FROM quote AS q LEFT JOIN origin AS o USING (origin_id)
WHERE q.coin_id = $1 AND q.at >= $2 AND q.at < $3
GROUP BY q.epoch ORDER BY q.epoch;

-- name: discontinuities
-- The neighbouring quotes of a day between which a position of the epoch is missing or the time falls:
-- coin's id, from, to, limit.
SELECT before_epoch, before_seq, before_at, epoch, seq, at
FROM (
    SELECT epoch, seq, at, lag(epoch) OVER w AS before_epoch, lag(seq) OVER w AS before_seq, lag(at) OVER w AS before_at
    FROM quote WHERE coin_id = $1 AND at >= $2 AND at < $3
    WINDOW w AS (ORDER BY epoch, seq)
) AS s
WHERE at < before_at OR (epoch = before_epoch AND seq - before_seq <> 1)
ORDER BY epoch, seq LIMIT $4;

-- name: content
-- The content of one day's quotes, after a position up to another: coin's id, two positions, day.
SELECT count, sum, digest FROM digest_quotes($1, $2, $3, $4, $5)
WHERE day = $6 AND count > 0;

-- name: candle_totals
-- The totals of a day's candles, by their length: coin's id, from, to.
SELECT minutes, count(*) AS candles, sum(count)::bigint AS count, sum(sum) AS sum
FROM candle WHERE coin_id = $1 AND at >= $2 AND at < $3 GROUP BY minutes ORDER BY minutes;

-- name: candle_differences
-- The candles of a day that differ from its quotes; for a dropped day, the hours that differ from its minutes. Each row
-- has the total number: coin's id, from, to, whether dropped, limit. Of equal prices with different digits, either may be
-- the highest or the lowest; of first, last and sum each digit is known.
WITH minute AS (
    SELECT date_bin('1 minute', at, '2000-01-01Z') AS at, origin_id, max(price) AS high, min(price) AS low,
        sum(price) AS sum, count(*) AS count,
        min(ARRAY[epoch, seq, price]) AS first, max(ARRAY[epoch, seq, price]) AS last
    FROM quote WHERE coin_id = $1 AND at >= $2 AND at < $3 AND NOT $4 GROUP BY 1, 2
    UNION ALL
    SELECT at, origin_id, high, low, sum, count, ARRAY[first_epoch, first_seq, open], ARRAY[last_epoch, last_seq, close]
    FROM candle WHERE coin_id = $1 AND at >= $2 AND at < $3 AND minutes = 1 AND $4
), quoted AS (
    SELECT 1 AS minutes, * FROM minute
    UNION ALL
    SELECT 60, date_bin('1 hour', at, '2000-01-01Z'), origin_id, max(high), min(low), sum(sum), sum(count), min(first),
        max(last)
    FROM minute GROUP BY 2, 3
), wanted AS (
    SELECT minutes, at, origin_id, first[3]::text AS open, high, low, last[3]::text AS close, count::bigint AS count,
        sum::text AS sum, first[1] || '-' || first[2] AS first, last[1] || '-' || last[2] AS last
    FROM quoted
), stored AS (
    SELECT minutes, at, origin_id, open::text AS open, high, low, close::text AS close, count::bigint AS count,
        sum::text AS sum, first_epoch || '-' || first_seq AS first, last_epoch || '-' || last_seq AS last
    FROM candle WHERE coin_id = $1 AND at >= $2 AND at < $3
)
SELECT minutes, at, origin_id, o.name AS origin, o.currency, count(*) OVER () AS total,
    s.open AS found_open, s.high::text AS found_high, s.low::text AS found_low, s.close AS found_close,
    s.count AS found_count, s.sum AS found_sum, s.first AS found_first, s.last AS found_last,
    w.open AS wanted_open, w.high::text AS wanted_high, w.low::text AS wanted_low, w.close AS wanted_close,
    w.count AS wanted_count, w.sum AS wanted_sum, w.first AS wanted_first, w.last AS wanted_last
FROM wanted AS w
FULL JOIN stored AS s USING (minutes, at, origin_id)
LEFT JOIN origin AS o USING (origin_id)
WHERE (s.open, s.high, s.low, s.close, s.count, s.sum, s.first, s.last)
    IS DISTINCT FROM (w.open, w.high, w.low, w.close, w.count, w.sum, w.first, w.last)
ORDER BY at, minutes, origin_id LIMIT $5;
