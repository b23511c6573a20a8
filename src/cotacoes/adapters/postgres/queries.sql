-- name: fence
-- The fence of one coin with its newest quote; CT001 if the coin does not live here.
SELECT f.placement, f.writer_epoch, f.writer, f.floor_epoch, f.floor_seq,
    /* quote_columns */
FROM fence AS f
LEFT JOIN LATERAL quotes_last(f.coin_id, 1) AS q ON true
LEFT JOIN origin AS o USING (origin_id)
LEFT JOIN era AS e ON q.seq = 1 AND e.coin_id = f.coin_id AND e.epoch = q.epoch
WHERE f.coin_id = home_of($1);

-- name: become_writer
-- Become the writer of a coin: coin, epoch, writer.
SELECT become_writer($1, $2, $3);

-- name: claim
-- Become the writer of a coin under a new epoch: coin, the least epoch, the epoch held so far, writer.
SELECT claim_fence($1, $2, $3, $4) AS epoch;

-- name: append
-- Store one batch: coin, placement, writer's epoch, the end it knows, runs, times, prices, agreements, then origins and
-- epochs.
SELECT stored, already, refused, conflicts
FROM append_quotes(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::numeric[], $13::text::text[], $14, $15, $16, $17, $18
);

-- name: unaccepted
-- The coins that live here and have holes and orphans that are not accepted yet, and how many.
SELECT f.coin, sum(d.holes)::bigint AS holes, sum(d.orphans)::bigint AS orphans
FROM (
    SELECT coin_id, count(*) AS holes, 0 AS orphans FROM hole WHERE accepted_at IS NULL GROUP BY coin_id
    UNION ALL
    SELECT coin_id, 0, count(*) FROM orphan WHERE accepted_at IS NULL GROUP BY coin_id
) AS d
JOIN fence AS f USING (coin_id)
WHERE f.state IN ('open', 'closed')
GROUP BY f.coin
ORDER BY f.coin;

-- name: after
-- The quotes of a coin after a position, ascending: coin, epoch, seq, limit.
SELECT /* quote_columns */
FROM quotes_after(home_of($1), $2, $3, $4) AS q
JOIN origin AS o USING (origin_id)
LEFT JOIN era AS e ON q.seq = 1 AND e.coin_id = q.coin_id AND e.epoch = q.epoch
ORDER BY q.epoch, q.seq;

-- name: between
-- The quotes of a time range, without its end, after a position, ascending: coin, from, to, epoch, seq, limit.
SELECT /* quote_columns */
FROM quotes_between(home_of($1), $2, $3, $4, $5, $6) AS q
JOIN origin AS o USING (origin_id)
LEFT JOIN era AS e ON q.seq = 1 AND e.coin_id = q.coin_id AND e.epoch = q.epoch
ORDER BY q.epoch, q.seq;

-- name: newest
-- The newest quotes, ascending, and the last position of each coin that lives here. A window, if one is requested, is on
-- the coin's first row, with the first and the last minute that have a quote of it: coins, count, then the arguments of
-- window_of, all null for no window.
SELECT f.coin, f.placement, f.last_epoch, f.last_seq, f.last_at, r.*, w.*, held.*
FROM fence AS f
LEFT JOIN LATERAL (
    SELECT /* quote_columns */, row_number() OVER (ORDER BY q.epoch, q.seq) AS place
    FROM quotes_last(f.coin_id, $2) AS q
    JOIN origin AS o USING (origin_id)
    LEFT JOIN era AS e ON q.seq = 1 AND e.coin_id = q.coin_id AND e.epoch = q.epoch
) AS r ON true
LEFT JOIN LATERAL (
    SELECT * FROM window_of(f.coin_id, $3, $4, $5, $6, $7, $8)
    WHERE $3::timestamptz IS NOT NULL AND (r.place IS NULL OR r.place = 1)
) AS w ON true
LEFT JOIN LATERAL (
    SELECT (
        SELECT c.at FROM candle AS c
        WHERE c.coin_id = f.coin_id AND c.minutes = 1 AND c.at >= $3 AND c.at < $6 AND c.origin_id = o.origin_id
        ORDER BY c.at LIMIT 1
    ) AS first_minute, (
        SELECT c.at FROM candle AS c
        WHERE c.coin_id = f.coin_id AND c.minutes = 1 AND c.at >= $3 AND c.at < $6 AND c.origin_id = o.origin_id
        ORDER BY c.at DESC LIMIT 1
    ) AS last_minute
    FROM origin AS o WHERE w.count IS NOT NULL AND (o.name, o.currency) = (w.w_origin, w.w_currency)
) AS held ON true
WHERE f.coin = ANY ($1::text[]) AND f.state IN ('open', 'closed')
ORDER BY f.coin, r.epoch, r.seq;

-- name: candles
-- The candles of a time range, without its end, ascending, and the coin's last position and its time:
-- coin, minutes stored, minutes wanted, from, to, limit, origin, currency. Null for the origin: that of the newest quote.
SELECT f.last_epoch, f.last_seq, f.last_at, c.*
FROM fence AS f
LEFT JOIN LATERAL (
    SELECT o.origin_id, o.name AS origin, o.currency FROM origin AS o
    WHERE CASE WHEN $7::text IS NULL
        THEN o.origin_id = (SELECT q.origin_id FROM quotes_last(f.coin_id, 1) AS q)
        ELSE (o.name, o.currency) = ($7, $8) END
) AS o ON true
LEFT JOIN LATERAL (
    SELECT date_bin($3::integer * interval '1 minute', c.at, '2000-01-01Z') AS at, o.origin, o.currency,
        (array_agg(c.open ORDER BY c.first_epoch, c.first_seq))[1]::text AS open, max(c.high)::text AS high,
        min(c.low)::text AS low, (array_agg(c.close ORDER BY c.last_epoch DESC, c.last_seq DESC))[1]::text AS close,
        sum(c.sum)::text AS sum, sum(c.count)::bigint AS count,
        (array_agg(c.first_epoch ORDER BY c.first_epoch, c.first_seq))[1] AS first_epoch,
        (array_agg(c.first_seq ORDER BY c.first_epoch, c.first_seq))[1] AS first_seq,
        (array_agg(c.last_epoch ORDER BY c.last_epoch DESC, c.last_seq DESC))[1] AS last_epoch_in,
        (array_agg(c.last_seq ORDER BY c.last_epoch DESC, c.last_seq DESC))[1] AS last_seq_in
    FROM (  -- no more than the result can be made of, however long the range
        SELECT * FROM candle AS c
        WHERE c.coin_id = f.coin_id AND c.minutes = $2 AND c.at >= $4 AND c.at < $5 AND c.origin_id = o.origin_id
        ORDER BY c.at LIMIT $6::bigint * ($3::integer / $2)
    ) AS c
    GROUP BY 1 ORDER BY 1 LIMIT $6
) AS c ON true
WHERE f.coin_id = home_of($1)
ORDER BY c.at;

-- name: directory
-- The home of every coin, in the order of their ids.
SELECT coin, coin_id, shard, placement, retention_days, currency, kind FROM directory ORDER BY coin_id;

-- name: learn_currencies
-- Note the currency of coins that have none yet: coins, currencies.
UPDATE directory AS d SET currency = n.currency FROM unnest($1::text[], $2::text[]) AS n (coin, currency)
WHERE d.coin = n.coin AND d.currency IS NULL;

-- name: shards
-- The shards that are not settings.
SELECT name, dsn FROM shard ORDER BY name;
