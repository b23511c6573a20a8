-- How venues agreed on a price is stored with its quote: `5/6 12.34` if five of six venues were used and agree within
-- 12.34, `2/3~16.75` if too few were used to be sure (thin), null if the source does not say.
--
-- One column, because a row with an eighth column that is null takes no more room than one of seven, and with a ninth it
-- takes 8 bytes more. Text, because it packs as tightly as numbers would and can be read with psql. Without an agreement
-- a digest is what it was, so days that were sealed before still match theirs.

ALTER TABLE quote ADD agreement text;

-- Quotes that differ in their agreement alone are different quotes.
ALTER TABLE conflict ADD agreement text, DROP CONSTRAINT conflict_pkey,
    ADD CONSTRAINT conflict_key
        UNIQUE NULLS NOT DISTINCT (coin_id, epoch, seq, at, observed_at, price, origin_id, agreement);
ALTER TABLE orphan ADD agreement text, DROP CONSTRAINT orphan_pkey,
    ADD CONSTRAINT orphan_key
        UNIQUE NULLS NOT DISTINCT (coin_id, epoch, seq, at, observed_at, price, origin_id, agreement);

CREATE OR REPLACE VIEW quotes AS
SELECT f.coin, q.epoch || '-' || q.seq AS position, q.at, q.observed_at, q.price, o.currency, o.name AS origin, q.agreement
FROM quote AS q
JOIN fence AS f USING (coin_id)
JOIN origin AS o USING (origin_id);

DROP FUNCTION store_run, store_new_quotes, holds_run, store_quotes, receive_quotes, batch_of, append_quotes;

-- Store a run: new quotes of one epoch and one origin, ascending from `p_seq` without a hole. Candles, the rows of days and
-- the fence's end follow from what the insert returns. `p_agreement` is null if no quote of the run has one.
CREATE FUNCTION store_run(
    id integer, p_origin_id smallint, p_epoch bigint, p_seq integer, p_at bigint[], p_observed_at bigint[],
    p_price numeric[], p_agreement text[]
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    n integer := cardinality(p_at);
    ends timestamptz := moment(p_at[n]);
    stored integer;
BEGIN
    IF utc_day(moment(p_at[1])) = utc_day(ends) THEN
        PERFORM prepare_day(utc_day(ends));
    ELSE
        PERFORM prepare_day(day) FROM (SELECT DISTINCT utc_day(moment(t)) FROM unnest(p_at) AS t) AS days (day);
    END IF;
    WITH added AS (
        INSERT INTO quote (epoch, seq, at, observed_at, coin_id, origin_id, price, agreement)
        SELECT p_epoch, p_seq + (b.n - 1)::integer, moment(b.at), moment(b.observed_at), id, p_origin_id, b.price, b.agreement
        FROM unnest(p_at, p_observed_at, p_price, p_agreement) WITH ORDINALITY AS b (at, observed_at, price, agreement, n)
        RETURNING seq, at, price
    ), minute AS MATERIALIZED (
        SELECT date_bin('1 minute', at, '2000-01-01Z') AS at, max(price) AS high, min(price) AS low,
            sum(price) AS sum, count(*) AS count, min(seq) AS first, max(seq) AS last
        FROM added GROUP BY 1
    ), hour AS (
        SELECT date_bin('1 hour', at, '2000-01-01Z') AS at, max(high) AS high, min(low) AS low,
            sum(sum) AS sum, sum(count) AS count, min(first) AS first, max(last) AS last
        FROM minute GROUP BY 1
    ), merged AS (
        INSERT INTO candle AS c
            (coin_id, minutes, at, origin_id, open, high, low, close, sum, count, first_epoch, first_seq, last_epoch, last_seq)
        SELECT id, w.minutes, w.at, p_origin_id, p_price[w.first - p_seq + 1], w.high, w.low, p_price[w.last - p_seq + 1],
            w.sum, w.count, p_epoch, w.first, p_epoch, w.last
        FROM (SELECT 1 AS minutes, * FROM minute UNION ALL SELECT 60, * FROM hour) AS w
        ON CONFLICT (coin_id, minutes, at, origin_id) DO UPDATE SET
            high = greatest(c.high, excluded.high), low = least(c.low, excluded.low),
            sum = c.sum + excluded.sum, count = c.count + excluded.count,
            -- what is added lies behind what is there
            close = excluded.close, last_epoch = excluded.last_epoch, last_seq = excluded.last_seq
    ), days AS (
        INSERT INTO day AS d (coin_id, day, first_epoch, first_seq, last_epoch, last_seq, count)
        SELECT id, utc_day(at), p_epoch, min(first), p_epoch, max(last), sum(count) FROM minute GROUP BY 2
        ON CONFLICT (coin_id, day) DO UPDATE SET
            last_epoch = excluded.last_epoch, last_seq = excluded.last_seq, count = d.count + excluded.count
    )
    SELECT sum(count) INTO stored FROM minute;
    UPDATE fence SET
        floor_epoch = coalesce(floor_epoch, p_epoch), floor_seq = coalesce(floor_seq, p_seq),
        last_epoch = p_epoch, last_seq = p_seq + (n - 1), last_at = ends
    WHERE coin_id = id;
    RETURN stored;
END
$$;

-- Store new quotes, ascending, run by run.
CREATE FUNCTION store_new_quotes(
    id integer, p_epoch bigint[], p_seq integer[], p_at timestamptz[], p_observed_at timestamptz[], p_price text[],
    p_agreement text[], p_origin smallint[], ids smallint[]
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    stored integer := 0;
    run record;
BEGIN
    FOR run IN
        SELECT min(r.n) AS first, max(r.n) AS last FROM (
            SELECT b.n, count(*) FILTER (WHERE b.is_first) OVER (ORDER BY b.n) AS number FROM (
                SELECT n, (epoch, seq - 1, origin) IS DISTINCT FROM (lag(epoch) OVER w, lag(seq) OVER w, lag(origin) OVER w)
                    AS is_first
                FROM unnest(p_epoch, p_seq, p_origin) WITH ORDINALITY AS u (epoch, seq, origin, n)
                WINDOW w AS (ORDER BY n)
            ) AS b
        ) AS r GROUP BY r.number ORDER BY 1
    LOOP
        stored := stored + store_run(
            id, ids[p_origin[run.first]], p_epoch[run.first], p_seq[run.first],
            ARRAY(SELECT microseconds_of(t) FROM unnest(p_at[run.first:run.last]) AS t),
            ARRAY(SELECT microseconds_of(t) FROM unnest(p_observed_at[run.first:run.last]) AS t),
            p_price[run.first:run.last]::numeric[], p_agreement[run.first:run.last]);
    END LOOP;
    RETURN stored;
END
$$;

-- Whether a run is stored, with all fields of each quote.
CREATE FUNCTION holds_run(
    id integer, p_origin_id smallint, p_epoch bigint, p_seq integer, p_at bigint[], p_observed_at bigint[],
    p_price numeric[], p_agreement text[]
) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    n integer := cardinality(p_at);
BEGIN
    RETURN (
        SELECT count(*) = n
        FROM quotes_through(id, p_epoch, p_seq, p_epoch, p_seq + (n - 1)) AS h, LATERAL (SELECT h.seq - p_seq + 1 AS i) AS b
        WHERE h.at = moment(p_at[i]) AND h.observed_at = moment(p_observed_at[i])
            AND h.price = p_price[i] AND scale(h.price) = scale(p_price[i]) AND h.origin_id = p_origin_id
            AND h.agreement IS NOT DISTINCT FROM p_agreement[i]
    );
END
$$;

-- Store a page of a move behind the fence `f`: quotes beyond its end are new; another quote under a stored position is a
-- conflict.
CREATE FUNCTION store_quotes(
    f fence, p_epoch bigint[], p_seq integer[], p_at timestamptz[], p_observed_at timestamptz[], p_price text[],
    p_agreement text[], p_origin smallint[], p_origins text[], p_currencies text[],
    p_era bigint[], p_prev_epoch bigint[], p_prev_seq integer[],
    OUT stored integer, OUT conflicts integer
) LANGUAGE plpgsql AS $$
DECLARE
    n integer := cardinality(p_seq);
    ids smallint[] := origin_ids(p_origins, p_currencies);
    lowest bigint[];
    highest bigint[];
BEGIN
    stored := 0;
    conflicts := 0;
    INSERT INTO era (coin_id, epoch, prev_epoch, prev_seq)
    SELECT f.coin_id, e.* FROM unnest(p_era, p_prev_epoch, p_prev_seq) AS e (epoch, prev_epoch, prev_seq)
    ON CONFLICT DO NOTHING;
    IF p_epoch[1] = p_epoch[n] AND p_seq[n] - p_seq[1] = n - 1
        AND (f.last_epoch IS NULL OR (p_epoch[1], p_seq[1]) > (f.last_epoch, f.last_seq)) THEN
        stored := store_new_quotes(f.coin_id, p_epoch, p_seq, p_at, p_observed_at, p_price, p_agreement, p_origin, ids);
        RETURN;
    END IF;

    SELECT min(ARRAY[epoch, seq]), max(ARRAY[epoch, seq]) INTO lowest, highest FROM unnest(p_epoch, p_seq) AS b (epoch, seq);
    WITH batch AS (
        SELECT * FROM unnest(p_epoch, p_seq, p_at, p_observed_at, p_price, p_agreement, p_origin)
            AS b (epoch, seq, at, observed_at, price, agreement, origin)
    ), held AS (
        SELECT * FROM quotes_through(f.coin_id, lowest[1], lowest[2]::integer, highest[1], highest[2]::integer)
    ), noted AS (
        INSERT INTO conflict (coin_id, epoch, seq, at, observed_at, price, origin_id, agreement)
        SELECT f.coin_id, b.epoch, b.seq, b.at, b.observed_at, b.price::numeric, ids[b.origin], b.agreement
        FROM batch AS b JOIN held AS h ON (h.epoch, h.seq) = (b.epoch, b.seq)
        WHERE (h.at, h.observed_at, h.price::text, h.origin_id) <> (b.at, b.observed_at, b.price, ids[b.origin])
            OR h.agreement IS DISTINCT FROM b.agreement
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT count(*) INTO conflicts FROM noted;
    SELECT array_agg(b.epoch), array_agg(b.seq), array_agg(b.at), array_agg(b.observed_at), array_agg(b.price),
        array_agg(b.agreement), array_agg(b.origin)
    INTO p_epoch, p_seq, p_at, p_observed_at, p_price, p_agreement, p_origin
    FROM (
        SELECT DISTINCT ON (epoch, seq) *
        FROM unnest(p_epoch, p_seq, p_at, p_observed_at, p_price, p_agreement, p_origin) WITH ORDINALITY
            AS b (epoch, seq, at, observed_at, price, agreement, origin, n)
        WHERE f.last_epoch IS NULL OR (epoch, seq) > (f.last_epoch, f.last_seq)
        ORDER BY epoch, seq, n
    ) AS b;
    IF p_seq IS NOT NULL THEN
        stored := store_new_quotes(f.coin_id, p_epoch, p_seq, p_at, p_observed_at, p_price, p_agreement, p_origin, ids);
    END IF;
END
$$;

-- Store one page of quotes, which follows the position `a`, so that no page can be left out; stored quotes stay.
CREATE FUNCTION receive_quotes(
    id integer, p_placement integer, a_epoch bigint, a_seq integer,
    p_epoch bigint[], p_seq integer[], p_at timestamptz[], p_observed_at timestamptz[], p_price text[], p_agreement text[],
    p_origin smallint[], p_origins text[], p_currencies text[], p_era bigint[], p_prev_epoch bigint[], p_prev_seq integer[]
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_copy(id);
    why text := why_not_incoming(f, p_placement);
BEGIN
    IF why IS NOT NULL THEN
        RETURN why;
    ELSIF (coalesce(f.last_epoch, 0), coalesce(f.last_seq, 0)) < (a_epoch, a_seq) THEN
        RETURN 'its copy lacks what comes before this page';
    END IF;
    PERFORM store_quotes(
        f, p_epoch, p_seq, p_at, p_observed_at, p_price, p_agreement, p_origin, p_origins, p_currencies,
        p_era, p_prev_epoch, p_prev_seq);
    RETURN NULL;
END
$$;

-- The quotes of a batch, from its runs, in the order in which they came.
CREATE FUNCTION batch_of(
    id integer, ids smallint[], p_epoch bigint[], p_seq integer[], p_count integer[], p_origin smallint[],
    p_at bigint[], p_observed_at bigint[], p_price numeric[], p_agreement text[]
) RETURNS quote[] LANGUAGE sql STABLE AS $$
    SELECT array_agg(
        ROW(
            b.epoch, moment(p_at[b.n]), moment(p_observed_at[b.n]), id, b.seq, ids[b.origin], p_price[b.n], p_agreement[b.n]
        )::quote
        ORDER BY b.n
    )
    FROM (
        SELECT r.epoch, r.seq + i AS seq, r.origin, row_number() OVER (ORDER BY r.n, i) AS n
        FROM unnest(p_epoch, p_seq, p_count, p_origin) WITH ORDINALITY AS r (epoch, seq, count, origin, n),
            generate_series(0, r.count - 1) AS i
    ) AS b
$$;

-- Judge the quotes of a batch that do not lie beyond the fence's end: each is stored already, or another one has its
-- position (a conflict), or it was never stored (refused: an orphan). Both are noted once, and counted each time.
CREATE OR REPLACE FUNCTION note_old_quotes(
    f fence, batch quote[], OUT already integer, OUT refused integer, OUT conflicts integer
) LANGUAGE plpgsql AS $$
DECLARE
    lowest bigint[];
    highest bigint[];
BEGIN
    SELECT min(ARRAY[epoch, seq]), max(ARRAY[epoch, seq]) INTO lowest, highest FROM unnest(batch);
    WITH judged AS MATERIALIZED (
        SELECT b.*, h.epoch IS NOT NULL OR was_dropped(f, b.epoch, b.seq) AS is_stored,
            h.epoch IS NOT NULL AND (
                (h.at, h.observed_at, h.price::text, h.origin_id) <> (b.at, b.observed_at, b.price::text, b.origin_id)
                OR h.agreement IS DISTINCT FROM b.agreement
            ) AS is_other
        FROM unnest(batch) AS b
        LEFT JOIN quotes_through(f.coin_id, lowest[1], lowest[2]::integer, highest[1], highest[2]::integer) AS h
            ON (h.epoch, h.seq) = (b.epoch, b.seq)
        WHERE (b.epoch, b.seq) <= (f.last_epoch, f.last_seq)
    ), conflicting AS (
        INSERT INTO conflict (coin_id, epoch, seq, at, observed_at, price, origin_id, agreement)
        SELECT j.coin_id, j.epoch, j.seq, j.at, j.observed_at, j.price, j.origin_id, j.agreement
        FROM judged AS j WHERE j.is_other
        ON CONFLICT DO NOTHING
    ), orphaned AS (
        INSERT INTO orphan (coin_id, epoch, seq, at, observed_at, price, origin_id, reason, agreement)
        SELECT j.coin_id, j.epoch, j.seq, j.at, j.observed_at, j.price, j.origin_id,
            CASE WHEN is_in_hole(j.coin_id, j.epoch, j.seq) THEN 'in_hole' ELSE 'superseded' END, j.agreement
        FROM judged AS j WHERE NOT j.is_stored
        ON CONFLICT DO NOTHING
    )
    SELECT count(*) FILTER (WHERE j.is_stored AND NOT j.is_other), count(*) FILTER (WHERE NOT j.is_stored),
        count(*) FILTER (WHERE j.is_other)
    INTO already, refused, conflicts FROM judged AS j;
END
$$;

-- Store one batch of the coin's writer, all or nothing, in one round trip; stored quotes stay. Each quote of it is one of
-- the four that are counted. SQLSTATEs as in become_writer, and CT004: the shard is not where the writer left it (as after
-- the restore of a backup), so the writer has to ask how far it is before it continues behind a hole. Positions come as
-- runs (the first one, how many, their origin), times in microseconds since 1970; `p_agreement` is null if no quote of the
-- batch has one; `p_end` is the shard's end as the writer knows it.
CREATE FUNCTION append_quotes(
    p_coin text, p_placement integer, p_writer_epoch bigint, p_end_epoch bigint, p_end_seq integer,
    p_epoch bigint[], p_seq integer[], p_count integer[], p_origin smallint[],
    p_at bigint[], p_observed_at bigint[], p_price numeric[], p_agreement text[],
    p_origins text[], p_currencies text[], p_era bigint[], p_prev_epoch bigint[], p_prev_seq integer[],
    OUT stored integer, OUT already integer, OUT refused integer, OUT conflicts integer
) LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_fence(p_coin);
    n integer := cardinality(p_at);
    ids smallint[];
    batch quote[];
    new record;
BEGIN
    IF f.placement IS DISTINCT FROM p_placement THEN
        RAISE EXCEPTION 'the coin has another placement' USING ERRCODE = 'CT001';
    ELSIF (f.writer_epoch <= p_writer_epoch) IS NOT TRUE THEN
        RAISE EXCEPTION 'another writer has this coin' USING ERRCODE = 'CT002';
    ELSIF f.writer_epoch < p_writer_epoch THEN
        RAISE EXCEPTION 'this writer is not known here' USING ERRCODE = 'CT004';
    ELSIF f.state = 'closed' THEN
        RAISE EXCEPTION 'the fence is closed' USING ERRCODE = 'CT003';
    END IF;
    stored := 0;
    already := 0;
    refused := 0;
    conflicts := 0;
    ids := origin_ids(p_origins, p_currencies);
    IF cardinality(p_seq) = 1 AND p_era = '{}' THEN  -- as in most batches: one run that follows the end, or is stored
        IF (f.last_epoch, f.last_seq) = (p_epoch[1], p_seq[1] - 1) THEN
            stored := store_run(
                f.coin_id, ids[p_origin[1]], p_epoch[1], p_seq[1], p_at, p_observed_at, p_price, p_agreement);
            RETURN;
        ELSIF (f.last_epoch, f.last_seq) >= (p_epoch[1], p_seq[1])
            AND holds_run(f.coin_id, ids[p_origin[1]], p_epoch[1], p_seq[1], p_at, p_observed_at, p_price, p_agreement) THEN
            already := n;
            RETURN;
        END IF;
    END IF;

    batch := batch_of(f.coin_id, ids, p_epoch, p_seq, p_count, p_origin, p_at, p_observed_at, p_price, p_agreement);
    IF f.last_epoch IS NOT NULL THEN
        SELECT o.* INTO already, refused, conflicts FROM note_old_quotes(f, batch) AS o;
    END IF;
    SELECT array_agg(b.epoch) AS epoch, array_agg(b.seq) AS seq, array_agg(b.at) AS at,
        array_agg(b.observed_at) AS observed_at, array_agg(b.price::text) AS price, array_agg(b.agreement) AS agreement,
        array_agg(array_position(ids, b.origin_id)::smallint) AS origin, sum(b.copies - 1)::integer AS doubles
    INTO new
    FROM (
        SELECT DISTINCT ON (b.epoch, b.seq) b.*, count(*) OVER (PARTITION BY b.epoch, b.seq) AS copies
        FROM unnest(batch) WITH ORDINALITY
            AS b (epoch, at, observed_at, coin_id, seq, origin_id, price, agreement, n)
        WHERE f.last_epoch IS NULL OR (b.epoch, b.seq) > (f.last_epoch, f.last_seq)
        ORDER BY b.epoch, b.seq, b.n
    ) AS b;
    IF new.seq IS NULL THEN
        RETURN;
    ELSIF link_new_quotes(f, new.epoch, new.seq, p_era, p_prev_epoch, p_prev_seq) > 0
        AND (p_end_epoch, p_end_seq) IS DISTINCT FROM (f.last_epoch, f.last_seq) THEN
        RAISE EXCEPTION 'the history ends at another position' USING ERRCODE = 'CT004';
    END IF;
    stored := store_new_quotes(
        f.coin_id, new.epoch, new.seq, new.at, new.observed_at, new.price, new.agreement, new.origin, ids);
    already := already + new.doubles;
END
$$;

-- The content of a coin's quotes after a position up to another, day by day, so that two copies can be compared. The digest
-- is a sum over the rows, each hashed with all its fields; so the digests of parts add up to that of the whole.
CREATE OR REPLACE FUNCTION digest_quotes(id integer, a_epoch bigint, a_seq integer, t_epoch bigint, t_seq integer)
RETURNS TABLE (day date, count bigint, sum numeric, digest numeric) LANGUAGE plpgsql STABLE AS $$
DECLARE
    d record;
BEGIN
    FOR d IN
        SELECT held.day, partition_of(held.day) AS part FROM day AS held
        WHERE held.coin_id = id AND held.dropped_at IS NULL
            AND (held.last_epoch, held.last_seq) > (a_epoch, a_seq) AND (held.first_epoch, held.first_seq) <= (t_epoch, t_seq)
        ORDER BY held.day
    LOOP
        RETURN QUERY EXECUTE format(
            -- concat_ws leaves out what is null; neither of the last two fields can be read as the other
            $q$SELECT $6::date, count(*), sum(q.price), sum(('x' || left(md5(concat_ws('|',
                q.epoch, q.seq, (extract(epoch FROM q.at) * 1000000)::bigint, (extract(epoch FROM q.observed_at) * 1000000)::bigint,
                q.price, o.name, o.currency,
                CASE WHEN q.seq = 1 THEN
                    (SELECT e.prev_epoch || '-' || e.prev_seq FROM era AS e WHERE e.coin_id = q.coin_id AND e.epoch = q.epoch)
                END, q.agreement)), 16))::bit(64)::bigint)
            FROM %I AS q JOIN origin AS o USING (origin_id)
            WHERE q.coin_id = $1 AND (q.epoch, q.seq) > ($2, $3) AND (q.epoch, q.seq) <= ($4, $5)$q$, d.part
        ) USING id, a_epoch, a_seq, t_epoch, t_seq, d.day;
    END LOOP;
END
$$;

-- In a move: store conflicts, orphans and holes as they were noted, with the names of their origins. If one is here already,
-- the source says whether it was accepted.
CREATE OR REPLACE FUNCTION receive_asides(
    id integer, p_placement integer, p_conflicts jsonb, p_orphans jsonb, p_holes jsonb
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    why text := why_not_incoming(locked_copy(id), p_placement);
BEGIN
    IF why IS NOT NULL THEN
        RETURN why;
    END IF;
    INSERT INTO conflict
    SELECT (jsonb_populate_record(NULL::conflict, w.told || jsonb_build_object('origin_id', w.here))).*
    FROM with_origins(p_conflicts) AS w
    ON CONFLICT DO NOTHING;
    INSERT INTO orphan
    SELECT (jsonb_populate_record(NULL::orphan, w.told || jsonb_build_object('origin_id', w.here))).*
    FROM with_origins(p_orphans) AS w
    ON CONFLICT (coin_id, epoch, seq, at, observed_at, price, origin_id, agreement)
        DO UPDATE SET accepted_at = excluded.accepted_at;
    INSERT INTO hole SELECT h.* FROM jsonb_populate_recordset(NULL::hole, p_holes) AS h
    ON CONFLICT (coin_id, next_epoch, next_seq) DO UPDATE SET accepted_at = excluded.accepted_at;
    RETURN NULL;
END
$$;
