-- name: plain_dates
-- Times go from shard to shard as text, which must not depend on the settings of a server.
SET datestyle TO 'ISO, YMD';

-- name: claim
-- Whether this session is now the only one that moves the coin: id.
SELECT pg_try_advisory_lock(hashtext('cotacoes.move'), $1) AS claimed;

-- name: copy
-- The coin's copy on this shard, in whatever state: coin.
SELECT coin_id, state, placement, moved_to, writer_epoch, writer, floor_epoch, floor_seq, last_epoch, last_seq, last_at,
    now() - changed_at AS age
FROM fence WHERE coin = $1;

-- name: days
-- Every day of a coin, ascending: id.
SELECT day, first_epoch, first_seq, last_epoch, last_seq, count, sum, digest, sealed_at, dropped_at
FROM day WHERE coin_id = $1 ORDER BY day;

-- name: page
-- Quotes after a position, ascending, one text per column, as `receive_quotes` expects: id, epoch, seq, limit.
WITH page AS MATERIALIZED (
    SELECT * FROM quotes_after($1, $2, $3, $4)
), kind AS MATERIALIZED (
    SELECT p.origin_id, o.name, o.currency, row_number() OVER (ORDER BY p.origin_id)::smallint AS number
    FROM (SELECT DISTINCT origin_id FROM page) AS p JOIN origin AS o USING (origin_id)
), began AS MATERIALIZED (
    SELECT e.epoch, e.prev_epoch, e.prev_seq
    FROM page AS p JOIN era AS e ON e.coin_id = p.coin_id AND e.epoch = p.epoch WHERE p.seq = 1
)
SELECT count(*) AS count, max(ARRAY[q.epoch, q.seq]) AS last, min(utc_day(q.at)) AS first_day, max(utc_day(q.at)) AS last_day,
    array_agg(q.epoch)::text AS epoch, array_agg(q.seq)::text AS seq, array_agg(q.at)::text AS at,
    array_agg(q.observed_at)::text AS observed_at, array_agg(q.price::text)::text AS price,
    CASE WHEN count(q.agreement) > 0 THEN array_agg(q.agreement)::text END AS agreement,
    array_agg(q.number)::text AS origin,
    (SELECT array_agg(name ORDER BY number)::text FROM kind) AS origins,
    (SELECT array_agg(currency ORDER BY number)::text FROM kind) AS currencies,
    (SELECT coalesce(array_agg(epoch ORDER BY epoch), '{}')::text FROM began) AS epochs,
    (SELECT coalesce(array_agg(prev_epoch ORDER BY epoch), '{}')::text FROM began) AS prev_epoch,
    (SELECT coalesce(array_agg(prev_seq ORDER BY epoch), '{}')::text FROM began) AS prev_seq
FROM (SELECT p.*, k.number FROM page AS p JOIN kind AS k USING (origin_id) ORDER BY p.epoch, p.seq) AS q;

-- name: quote
-- The first quote after a position: id, epoch, seq.
SELECT /* quote_columns */
FROM quotes_after($1, $2, $3, 1) AS q
JOIN origin AS o USING (origin_id)
LEFT JOIN era AS e ON q.seq = 1 AND e.coin_id = q.coin_id AND e.epoch = q.epoch;

-- name: content
-- The content of the quotes between two positions, by day: id, after, through.
SELECT day, count, sum, digest FROM digest_quotes($1, $2, $3, $4, $5) WHERE count > 0;

-- name: candle_content
-- The content of a day's candles: id, day.
SELECT count, sum, digest FROM digest_candles($1, $2);

-- name: dropped
-- The row and the candles of a dropped day: id, day.
SELECT to_jsonb(d)::text AS day, (
    SELECT coalesce(jsonb_agg(to_jsonb(c) || jsonb_build_object('origin', o.name, 'currency', o.currency)), '[]')::text
    FROM candle AS c JOIN origin AS o USING (origin_id)
    WHERE c.coin_id = d.coin_id AND c.at >= d.day::timestamp AT TIME ZONE 'UTC'
        AND c.at < (d.day + 1)::timestamp AT TIME ZONE 'UTC'
) AS candles
FROM day AS d WHERE d.coin_id = $1 AND d.day = $2 AND d.dropped_at IS NOT NULL;

-- name: epochs
-- Every epoch of a coin that follows another: id.
SELECT coalesce(jsonb_agg(to_jsonb(e)), '[]')::text AS epochs FROM era AS e WHERE e.coin_id = $1;

-- name: asides
-- Conflicts, orphans and holes after a position, all those of a position together: id, epoch, seq, limit.
WITH aside AS (
    (SELECT 'conflict' AS kind, epoch, seq, origin_id, to_jsonb(c) AS fields FROM conflict AS c
    WHERE coin_id = $1 AND (epoch, seq) > ($2, $3) ORDER BY epoch, seq FETCH FIRST $4 ROWS WITH TIES)
    UNION ALL
    (SELECT 'orphan', epoch, seq, origin_id, to_jsonb(o) FROM orphan AS o
    WHERE coin_id = $1 AND (epoch, seq) > ($2, $3) ORDER BY epoch, seq FETCH FIRST $4 ROWS WITH TIES)
    UNION ALL
    (SELECT 'hole', next_epoch, next_seq, NULL, to_jsonb(h) FROM hole AS h
    WHERE coin_id = $1 AND (next_epoch, next_seq) > ($2, $3)
    ORDER BY next_epoch, next_seq FETCH FIRST $4 ROWS WITH TIES)
), page AS (
    SELECT * FROM aside ORDER BY epoch, seq FETCH FIRST $4 ROWS WITH TIES
), named AS (
    SELECT p.kind, p.epoch, p.seq, p.fields || jsonb_build_object('origin', o.name, 'currency', o.currency) AS fields
    FROM page AS p LEFT JOIN origin AS o USING (origin_id)
)
SELECT count(*) AS count, max(ARRAY[epoch, seq]) AS last,
    coalesce(jsonb_agg(fields) FILTER (WHERE kind = 'conflict'), '[]')::text AS conflicts,
    coalesce(jsonb_agg(fields) FILTER (WHERE kind = 'orphan'), '[]')::text AS orphans,
    coalesce(jsonb_agg(fields) FILTER (WHERE kind = 'hole'), '[]')::text AS holes
FROM named;

-- name: aside_count
-- How many conflicts, orphans and holes a coin has, and how many orphans and holes are accepted: id.
SELECT (SELECT count(*) FROM conflict WHERE coin_id = $1) AS conflicts, o.count AS orphans, h.count AS holes,
    o.accepted + h.accepted AS accepted
FROM (SELECT count(*), count(accepted_at) AS accepted FROM orphan WHERE coin_id = $1) AS o,
    (SELECT count(*), count(accepted_at) AS accepted FROM hole WHERE coin_id = $1) AS h;

-- name: prepare_days
-- Create the partitions of a range of days, both ends included. It is a statement of its own, as others may need them.
SELECT prepare_day(day::date) FROM generate_series($1::date, $2::date, '1 day') AS day;

-- name: begin
-- Begin a copy, or continue one: id, coin, placement.
SELECT begin_copy($1, $2, $3) AS why;

-- name: receive
-- Store a page: id, placement, the position before it, one text per column, null if no quote has an agreement.
SELECT receive_quotes($1, $2, $3, $4,
    $5::text::bigint[], $6::text::integer[], $7::text::timestamptz[], $8::text::timestamptz[], $9::text::text[],
    $10::text::text[], $11::text::smallint[], $12::text::text[], $13::text::text[],
    $14::text::bigint[], $15::text::bigint[], $16::text::integer[]) AS why;

-- name: receive_epochs
-- Store epochs: id, placement, epochs.
SELECT receive_eras($1, $2, $3::text::jsonb) AS why;

-- name: receive_asides
-- Keep aside a page of conflicts, orphans and holes: id, placement, conflicts, orphans, holes.
SELECT receive_asides($1, $2, $3::text::jsonb, $4::text::jsonb, $5::text::jsonb) AS why;

-- name: receive_dropped
-- Store the row and the candles of a dropped day: id, placement, day, candles.
SELECT receive_dropped($1, $2, $3::text::jsonb, $4::text::jsonb) AS why;

-- name: receive_manifest
-- Store the manifest of a sealed day: id, placement, day, count, sum, digest, sealed_at.
SELECT receive_manifest($1, $2, $3, $4, $5, $6, $7) AS why;

-- name: close
-- Close the source's fence: id, placement.
SELECT close_copy($1, $2) AS why;

-- name: reopen
-- Open the source's fence again: id, placement.
SELECT reopen_copy($1, $2) AS why;

-- name: open
-- Open the target: id, placement, verified position and count, the writer's epoch and name, floor, last quote's time.
SELECT open_copy($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) AS why;

-- name: leave
-- Leave the source: id, placement, the shard on which the coin lives now.
SELECT leave_copy($1, $2, $3) AS why;

-- name: give_up
-- Give up an incoming copy: id, placement.
SELECT give_up_copy($1, $2) AS why;

-- name: purge
-- Delete some quotes of a copy that is not the coin's home: id, placement, limit.
SELECT more, why FROM purge_copy($1, $2, $3);

-- name: place
-- Write into the directory where a coin lives: coin, shard, placement. The placement never falls.
UPDATE directory SET shard = $2, placement = $3 WHERE coin = $1 AND placement < $3;
