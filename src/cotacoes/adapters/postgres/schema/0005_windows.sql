-- Windows: what a coin's price did over an hour, a day or a week, from stored candles alone.

-- Whether a position follows another one of the coin without a hole: in its era, or as the first of the era after it.
CREATE FUNCTION follows(id integer, a_epoch bigint, a_seq integer, b_epoch bigint, b_seq integer) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT (b_epoch = a_epoch AND b_seq = a_seq + 1)
        OR (b_seq = 1 AND EXISTS (
            SELECT FROM era AS e
            WHERE e.coin_id = id AND e.epoch = b_epoch AND e.prev_epoch = a_epoch AND e.prev_seq = a_seq
        ))
$$;

-- Whether so many quotes after the position `a` up to `b` are all that were recorded there. By the eras, of which each
-- says where the one before it ended.
CREATE FUNCTION are_all(id integer, a_epoch bigint, a_seq integer, b_epoch bigint, b_seq integer, p_count bigint)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT p_count = coalesce(sum(e.prev_seq), 0) + b_seq - a_seq
        AND coalesce(bool_and(e.prev_epoch = e.known), true)
        AND coalesce(max(e.epoch), a_epoch) = b_epoch
    FROM (
        SELECT e.epoch, e.prev_epoch, e.prev_seq, lag(e.epoch, 1, a_epoch) OVER (ORDER BY e.epoch) AS known
        FROM era AS e WHERE e.coin_id = id AND e.epoch > a_epoch AND e.epoch <= b_epoch
    ) AS e
$$;

-- How many holes of a coin end in a range of full minutes. Minute by minute, since a minute's candles tell the first and
-- the last position and how many there are; quotes are read only of minutes of which that is not all. A day that was
-- dropped has none to read: what is missing in one of its minutes counts as one hole.
CREATE FUNCTION holes_between(id integer, p_from timestamptz, p_to timestamptz) RETURNS integer
LANGUAGE plpgsql STABLE AS $$
DECLARE
    before record;
    part record;
    within integer;
    holes integer := 0;
BEGIN
    SELECT c.last_epoch, c.last_seq INTO before FROM candle AS c
    WHERE c.coin_id = id AND c.minutes = 1 AND c.at < p_from ORDER BY c.at DESC, c.last_epoch DESC, c.last_seq DESC LIMIT 1;
    FOR part IN
        SELECT sum(c.count) AS count,
            (array_agg(c.first_epoch ORDER BY c.first_epoch, c.first_seq))[1] AS first_epoch,
            (array_agg(c.first_seq ORDER BY c.first_epoch, c.first_seq))[1] AS first_seq,
            (array_agg(c.last_epoch ORDER BY c.last_epoch DESC, c.last_seq DESC))[1] AS last_epoch,
            (array_agg(c.last_seq ORDER BY c.last_epoch DESC, c.last_seq DESC))[1] AS last_seq
        FROM candle AS c WHERE c.coin_id = id AND c.minutes = 1 AND c.at >= p_from AND c.at < p_to
        GROUP BY c.at ORDER BY c.at
    LOOP
        IF before.last_epoch IS NOT NULL
            AND NOT follows(id, before.last_epoch, before.last_seq, part.first_epoch, part.first_seq)
        THEN
            holes := holes + 1;
        END IF;
        IF NOT are_all(id, part.first_epoch, part.first_seq - 1, part.last_epoch, part.last_seq, part.count) THEN
            SELECT count(*) FILTER (WHERE NOT follows(id, q.a_epoch, q.a_seq, q.epoch, q.seq)) INTO within
            FROM (
                SELECT q.epoch, q.seq, lag(q.epoch) OVER w AS a_epoch, lag(q.seq) OVER w AS a_seq
                FROM quotes_through(id, part.first_epoch, part.first_seq, part.last_epoch, part.last_seq) AS q
                WINDOW w AS (ORDER BY q.epoch, q.seq)
            ) AS q;
            holes := holes + greatest(within, 1);
        END IF;
        before := part;
    END LOOP;
    RETURN holes;
END
$$;

-- A coin's window [p_from, p_to): of it [p_whole_from, p_whole_to) is read from candles of `p_minutes`, the rest from
-- minutes. Of the origin of the coin's newest quote; its closes are one for each `p_step` minutes in which it has a quote.
-- No row where the coin never had a quote, a null `count` where that origin has none in it.
CREATE FUNCTION window_of(
    id integer, p_from timestamptz, p_whole_from timestamptz, p_whole_to timestamptz, p_to timestamptz, p_minutes integer,
    p_step integer
) RETURNS TABLE (
    w_origin text, w_currency text, open text, high text, low text, close text, count bigint, sum text,
    first_epoch bigint, first_seq integer, last_epoch_in bigint, last_seq_in integer,
    closes_at timestamptz[], closes text[], minutes integer, holes integer
) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    newest record;
    before record;
    told record;
BEGIN
    SELECT o.* INTO newest FROM candle AS c JOIN origin AS o USING (origin_id)
    WHERE c.coin_id = id AND c.minutes = 1 ORDER BY c.at DESC, c.last_epoch DESC, c.last_seq DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    WITH part AS MATERIALIZED (
        SELECT c.*, c.origin_id = newest.origin_id AS is_ours FROM candle AS c
        WHERE c.coin_id = id AND c.minutes = p_minutes AND c.at >= p_whole_from AND c.at < p_whole_to
        UNION ALL
        SELECT c.*, c.origin_id = newest.origin_id FROM candle AS c
        WHERE c.coin_id = id AND c.minutes = 1 AND c.at >= p_from AND c.at < least(p_whole_from, p_to)
        UNION ALL
        SELECT c.*, c.origin_id = newest.origin_id FROM candle AS c
        WHERE c.coin_id = id AND c.minutes = 1 AND c.at >= greatest(p_whole_from, p_whole_to) AND c.at < p_to
    ), step AS (
        SELECT DISTINCT ON (s.at) s.at, p.close
        FROM part AS p, date_bin(p_step * interval '1 minute', p.at, '2000-01-01Z') AS s (at)
        WHERE p.is_ours ORDER BY s.at, p.last_epoch DESC, p.last_seq DESC
    )
    SELECT ours.*, b.open, b.first_epoch, b.first_seq, e.close, e.last_epoch, e.last_seq, steps.*,
        f.first_epoch AS all_first_epoch, f.first_seq AS all_first_seq,
        l.last_epoch AS all_last_epoch, l.last_seq AS all_last_seq
    INTO told
    FROM (
        SELECT sum(p.count) AS all_count, sum(p.count) FILTER (WHERE p.is_ours) AS count,
            sum(p.sum) FILTER (WHERE p.is_ours) AS sum,
            max(p.high) FILTER (WHERE p.is_ours) AS high, min(p.low) FILTER (WHERE p.is_ours) AS low
        FROM part AS p
    ) AS ours
    CROSS JOIN (SELECT array_agg(s.at) AS closes_at, array_agg(s.close::text) AS closes FROM step AS s) AS steps
    LEFT JOIN (SELECT * FROM part AS p WHERE p.is_ours ORDER BY p.first_epoch, p.first_seq LIMIT 1) AS b ON true
    LEFT JOIN (SELECT * FROM part AS p WHERE p.is_ours ORDER BY p.last_epoch DESC, p.last_seq DESC LIMIT 1) AS e ON true
    LEFT JOIN (SELECT * FROM part AS p ORDER BY p.first_epoch, p.first_seq LIMIT 1) AS f ON true
    LEFT JOIN (SELECT * FROM part AS p ORDER BY p.last_epoch DESC, p.last_seq DESC LIMIT 1) AS l ON true;
    holes := 0;
    IF told.all_count > 0 THEN
        SELECT c.last_epoch, c.last_seq INTO before FROM candle AS c
        WHERE c.coin_id = id AND c.minutes = 1 AND c.at < p_from
        ORDER BY c.at DESC, c.last_epoch DESC, c.last_seq DESC LIMIT 1;
        IF NOT FOUND THEN
            SELECT told.all_first_epoch AS last_epoch, told.all_first_seq - 1 AS last_seq INTO before;
        END IF;
        IF NOT are_all(
            id, before.last_epoch, before.last_seq, told.all_last_epoch, told.all_last_seq, told.all_count::bigint
        ) THEN
            holes := holes_between(id, p_from, p_to);
        END IF;
    END IF;
    SELECT count(DISTINCT c.at) INTO minutes FROM candle AS c
    WHERE c.coin_id = id AND c.minutes = 1 AND c.at >= p_from AND c.at < p_to AND c.origin_id = newest.origin_id;
    RETURN QUERY SELECT newest.name, newest.currency, told.open::text, told.high::text, told.low::text,
        told.close::text, told.count::bigint, told.sum::text, told.first_epoch, told.first_seq, told.last_epoch,
        told.last_seq, told.closes_at, told.closes, minutes, holes;
END
$$;
