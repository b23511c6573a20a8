-- name: list
-- The discrepancies, oldest first, with the orphans of one batch in one row: coin, or null for every coin that lives here.
SELECT f.coin, d.* FROM (
    SELECT 'hole' AS kind, h.coin_id, h.after_epoch AS first_epoch, h.after_seq AS first_seq,
        h.next_epoch AS last_epoch, h.next_seq AS last_seq, NULL::bigint AS count, h.reason, h.noted_at, h.accepted_at
    FROM hole AS h
    UNION ALL
    SELECT 'orphan', o.coin_id, o.epoch, min(o.seq), o.epoch, max(o.seq), count(*), o.reason, o.noted_at, o.accepted_at
    FROM orphan AS o GROUP BY o.coin_id, o.epoch, o.reason, o.noted_at, o.accepted_at
) AS d
JOIN fence AS f USING (coin_id)
WHERE f.state IN ('open', 'closed') AND ($1::text IS NULL OR f.coin = $1)
ORDER BY d.noted_at, f.coin, d.kind, d.last_epoch, d.last_seq;

-- name: orphans
-- The orphans of a coin after a position, all those of a position together: coin, epoch, seq, limit. An orphan follows no
-- position of the history.
SELECT /* quote_columns */, q.reason, q.noted_at, q.accepted_at
FROM (
    SELECT * FROM orphan WHERE coin_id = home_of($1) AND (epoch, seq) > ($2, $3)
    ORDER BY epoch, seq FETCH FIRST $4 ROWS WITH TIES
) AS q JOIN origin AS o USING (origin_id)
CROSS JOIN (SELECT NULL::bigint AS prev_epoch, NULL::integer AS prev_seq) AS e
ORDER BY q.epoch, q.seq, q.at, q.observed_at, q.price, q.origin_id;

-- name: accept
-- Accept the discrepancies of a coin: coin.
SELECT holes, orphans FROM accept_discrepancies($1);
