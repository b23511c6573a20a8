-- The ledger, second form: rows without padding, candles, a row per coin and day, and fences that can move.
-- What is stored in the first form is carried over.

ALTER TABLE quote RENAME TO quote_1;
ALTER INDEX quote_at RENAME TO quote_1_at;
DROP VIEW quotes;
DROP FUNCTION prepare_day, become_writer, append_quotes;
DO $$
DECLARE
    part record;
BEGIN
    FOR part IN SELECT inhrelid::regclass AS name FROM pg_inherits WHERE inhparent = 'quote_1'::regclass LOOP
        EXECUTE format('ALTER TABLE %s RENAME TO %I', part.name, 'first_' || part.name);
    END LOOP;
END
$$;

-- Shards beyond shard1 and shard2, whose addresses are settings. Read on shard1 only, as `directory` is.
CREATE TABLE shard (
    name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,31}$'),
    dsn text NOT NULL
);

-- Under which name this database is a shard, so that it does not become two.
CREATE TABLE identity (
    name text NOT NULL,
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row)
);

ALTER TABLE directory ADD retention_days integer CHECK (retention_days > 0);

-- open: takes quotes. closed: for the end of a move; still read. moved: lives on `moved_to`, under the next placement.
-- incoming: a copy in the making, neither read nor written by anyone but the mover.
ALTER TABLE fence
    ADD state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed', 'moved', 'incoming')),
    ADD moved_to text,
    ADD changed_at timestamptz NOT NULL DEFAULT now(),
    ADD last_at timestamptz,
    ADD CHECK ((state = 'moved') = (moved_to IS NOT NULL));

UPDATE fence SET state = 'closed' WHERE NOT writable;
ALTER TABLE fence DROP COLUMN writable;

-- The widest columns first: seven columns without a null take 72 bytes, where the order of reading would take 80.
CREATE TABLE quote (
    epoch bigint NOT NULL CHECK (epoch > 0),
    at timestamptz NOT NULL,
    observed_at timestamptz NOT NULL,
    coin_id integer NOT NULL,
    seq integer NOT NULL CHECK (seq > 0),
    origin_id smallint NOT NULL,
    price numeric NOT NULL CHECK (price > 0 AND price < 'Infinity')  -- NaN sorts above Infinity, so it is refused too
) PARTITION BY RANGE (at);  -- by UTC day; each has the key (coin_id, epoch, seq), which needs no `at` in it

CREATE INDEX quote_at ON quote USING brin (at);

-- The last position before an era, where there is one: stored once for an era and not with every quote.
CREATE TABLE era (
    coin_id integer NOT NULL,
    epoch bigint NOT NULL,
    prev_epoch bigint NOT NULL,
    prev_seq integer NOT NULL,
    PRIMARY KEY (coin_id, epoch)
);

-- Which positions a day holds: the way from a position to its partition, since `at` never falls while positions rise.
-- A sealed day has its manifest here (count, sum, digest), which outlives its quotes.
CREATE TABLE day (
    coin_id integer NOT NULL,
    day date NOT NULL,
    first_epoch bigint NOT NULL,
    first_seq integer NOT NULL,
    last_epoch bigint NOT NULL,
    last_seq integer NOT NULL,
    count bigint NOT NULL,
    sum numeric,
    digest numeric,
    sealed_at timestamptz,
    dropped_at timestamptz,
    PRIMARY KEY (coin_id, day),
    CHECK (sealed_at IS NULL OR (sum IS NOT NULL AND digest IS NOT NULL)),
    CHECK (dropped_at IS NULL OR sealed_at IS NOT NULL)
) WITH (fillfactor = 50);

-- One row per minute and per hour in which the coin had a quote, and per origin: an invented price never meets a real one.
CREATE TABLE candle (
    coin_id integer NOT NULL,
    minutes smallint NOT NULL CHECK (minutes IN (1, 60)),
    at timestamptz NOT NULL,
    origin_id smallint NOT NULL,
    open numeric NOT NULL,
    high numeric NOT NULL,
    low numeric NOT NULL,
    close numeric NOT NULL,
    sum numeric NOT NULL,
    count integer NOT NULL,
    first_epoch bigint NOT NULL,
    last_epoch bigint NOT NULL,
    first_seq integer NOT NULL,
    last_seq integer NOT NULL,
    PRIMARY KEY (coin_id, minutes, at, origin_id)
) WITH (fillfactor = 80);

-- Quotes that came under a position which another one had already: the first stays, the other is kept here.
CREATE TABLE conflict (
    coin_id integer NOT NULL,
    epoch bigint NOT NULL,
    seq integer NOT NULL,
    at timestamptz NOT NULL,
    observed_at timestamptz NOT NULL,
    price numeric NOT NULL,
    origin_id smallint NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (coin_id, epoch, seq, at, observed_at, price, origin_id)
);

-- For people with psql.
CREATE VIEW quotes AS
SELECT f.coin, q.epoch || '-' || q.seq AS position, q.at, q.observed_at, q.price, o.currency, o.name AS origin
FROM quote AS q
JOIN fence AS f USING (coin_id)
JOIN origin AS o USING (origin_id);

CREATE FUNCTION partition_of(day date) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'quote_' || to_char(day, 'YYYYMMDD')
$$;

CREATE FUNCTION utc_day(at timestamptz) RETURNS date LANGUAGE sql IMMUTABLE AS $$
    SELECT (at AT TIME ZONE 'UTC')::date
$$;

-- Make the partition of one UTC day. LIKE and ATTACH, because CREATE … PARTITION OF would lock out every reader.
CREATE FUNCTION prepare_day(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    part text := partition_of(day);
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('cotacoes.prepare_day'), 0);
    -- not by to_regclass, which may still answer from a cache that the wait for the lock has not renewed
    IF EXISTS (SELECT FROM pg_class WHERE relname = part AND relnamespace = current_schema()::regnamespace) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE quote INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (coin_id, epoch, seq))',
                   part);
    EXECUTE format('ALTER TABLE quote ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part,
                   day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
END
$$;

-- The coin's fence, locked to the end of the transaction: one batch, one writer, one change at a time.
-- SQLSTATE CT001 where the coin is not at home here; its DETAIL is `SHARD PLACEMENT` where that is known.
CREATE FUNCTION locked_fence(p_coin text) RETURNS fence LANGUAGE plpgsql AS $$
DECLARE
    id integer := (SELECT coin_id FROM fence WHERE coin = p_coin);
    f fence;
BEGIN
    IF id IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(hashtext('cotacoes.fence'), id);
        SELECT * INTO f FROM fence WHERE coin_id = id;  -- its own statement: the snapshot must be younger than the lock
    END IF;
    IF f.coin_id IS NULL OR f.state = 'incoming' THEN
        RAISE EXCEPTION 'no fence for this coin' USING ERRCODE = 'CT001';
    ELSIF f.state = 'moved' THEN
        RAISE EXCEPTION 'the coin has moved' USING ERRCODE = 'CT001', DETAIL = f.moved_to || ' ' || f.placement + 1;
    END IF;
    RETURN f;
END
$$;

-- Take the coin over for a writer. SQLSTATE CT001 moved, CT002 superseded, CT003 closed.
CREATE FUNCTION become_writer(p_coin text, p_epoch bigint, p_writer text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_fence(p_coin);
BEGIN
    IF f.writer_epoch > p_epoch OR (f.writer_epoch = p_epoch AND f.writer <> p_writer) THEN
        RAISE EXCEPTION 'a newer writer has this coin' USING ERRCODE = 'CT002';
    ELSIF f.state = 'closed' THEN
        RAISE EXCEPTION 'the fence is closed' USING ERRCODE = 'CT003';
    END IF;
    UPDATE fence SET writer_epoch = p_epoch, writer = p_writer WHERE coin_id = f.coin_id;
END
$$;

-- The ids of origins, those that are new included, in the order given.
CREATE FUNCTION origin_ids(p_names text[], p_currencies text[]) RETURNS smallint[] LANGUAGE plpgsql AS $$
DECLARE
    ids smallint[];
BEGIN
    FOR attempt IN 1..2 LOOP
        SELECT array_agg(o.origin_id ORDER BY b.n) INTO ids
        FROM unnest(p_names, p_currencies) WITH ORDINALITY AS b (name, currency, n)
        LEFT JOIN origin AS o ON o.name = b.name AND o.currency = b.currency;
        EXIT WHEN array_position(ids, NULL) IS NULL;
        INSERT INTO origin (name, currency)
        SELECT b.name, b.currency FROM unnest(p_names, p_currencies) AS b (name, currency) ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN ids;
END
$$;

-- A time from its microseconds since 1970, as which times travel fastest; exact, as long as these are below 2^53.
CREATE FUNCTION moment(microseconds bigint) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT timestamptz '1970-01-01Z' + microseconds * interval '1 microsecond'
$$;

CREATE FUNCTION microseconds_of(moment timestamptz) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (extract(epoch FROM moment) * 1000000)::bigint
$$;

-- Store a run, which is quotes of one era and one origin, ascending from `p_seq` without a hole, that are not there yet;
-- with all that follows from them: candles, days, the fence's end.
-- Candles count what the insert gives back, and never what was offered.
CREATE FUNCTION store_run(
    id integer, p_origin_id smallint, p_epoch bigint, p_seq integer, p_at bigint[], p_observed_at bigint[], p_price numeric[]
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
        INSERT INTO quote (epoch, seq, at, observed_at, coin_id, origin_id, price)
        SELECT p_epoch, p_seq + (b.n - 1)::integer, moment(b.at), moment(b.observed_at), id, p_origin_id, b.price
        FROM unnest(p_at, p_observed_at, p_price) WITH ORDINALITY AS b (at, observed_at, price, n)
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

-- Store quotes that are not there yet, ascending, run by run.
CREATE FUNCTION store_new_quotes(
    id integer, p_epoch bigint[], p_seq integer[], p_at timestamptz[], p_observed_at timestamptz[], p_price text[],
    p_origin smallint[], ids smallint[]
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
            p_price[run.first:run.last]::numeric[]);
    END LOOP;
    RETURN stored;
END
$$;

-- Whether a run is there, each quote with all that it says.
CREATE FUNCTION holds_run(
    id integer, p_origin_id smallint, p_epoch bigint, p_seq integer, p_at bigint[], p_observed_at bigint[], p_price numeric[]
) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    n integer := cardinality(p_at);
BEGIN
    RETURN (
        SELECT count(*) = n
        FROM quotes_through(id, p_epoch, p_seq, p_epoch, p_seq + (n - 1)) AS h, LATERAL (SELECT h.seq - p_seq + 1 AS i) AS b
        WHERE h.at = moment(p_at[i]) AND h.observed_at = moment(p_observed_at[i])
            AND h.price = p_price[i] AND scale(h.price) = scale(p_price[i]) AND h.origin_id = p_origin_id
    );
END
$$;

-- Store a batch behind the fence `f`: what lies beyond its end is new; of what does not, another content is a conflict.
CREATE FUNCTION store_quotes(
    f fence, p_epoch bigint[], p_seq integer[], p_at timestamptz[], p_observed_at timestamptz[], p_price text[],
    p_origin smallint[], p_origins text[], p_currencies text[], p_era bigint[], p_prev_epoch bigint[], p_prev_seq integer[],
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
        stored := store_new_quotes(f.coin_id, p_epoch, p_seq, p_at, p_observed_at, p_price, p_origin, ids);
        RETURN;
    END IF;

    SELECT min(ARRAY[epoch, seq]), max(ARRAY[epoch, seq]) INTO lowest, highest FROM unnest(p_epoch, p_seq) AS b (epoch, seq);
    WITH batch AS (
        SELECT * FROM unnest(p_epoch, p_seq, p_at, p_observed_at, p_price, p_origin)
            AS b (epoch, seq, at, observed_at, price, origin)
    ), held AS (
        SELECT * FROM quotes_through(f.coin_id, lowest[1], lowest[2]::integer, highest[1], highest[2]::integer)
    ), noted AS (
        INSERT INTO conflict (coin_id, epoch, seq, at, observed_at, price, origin_id)
        SELECT f.coin_id, b.epoch, b.seq, b.at, b.observed_at, b.price::numeric, ids[b.origin]
        FROM batch AS b JOIN held AS h ON (h.epoch, h.seq) = (b.epoch, b.seq)
        WHERE (h.at, h.observed_at, h.price::text, h.origin_id) <> (b.at, b.observed_at, b.price, ids[b.origin])
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT count(*) INTO conflicts FROM noted;
    SELECT array_agg(b.epoch), array_agg(b.seq), array_agg(b.at), array_agg(b.observed_at), array_agg(b.price),
        array_agg(b.origin)
    INTO p_epoch, p_seq, p_at, p_observed_at, p_price, p_origin
    FROM (
        SELECT DISTINCT ON (epoch, seq) *
        FROM unnest(p_epoch, p_seq, p_at, p_observed_at, p_price, p_origin) WITH ORDINALITY
            AS b (epoch, seq, at, observed_at, price, origin, n)
        WHERE f.last_epoch IS NULL OR (epoch, seq) > (f.last_epoch, f.last_seq)
        ORDER BY epoch, seq, n
    ) AS b;
    IF p_seq IS NOT NULL THEN
        stored := store_new_quotes(f.coin_id, p_epoch, p_seq, p_at, p_observed_at, p_price, p_origin, ids);
    END IF;
END
$$;

-- Store one batch of the coin's writer, all or nothing, in one round trip; what is there already stays. SQLSTATEs as in
-- become_writer. Positions come as runs (the first one, how many, their origin), times in microseconds since 1970.
CREATE FUNCTION append_quotes(
    p_coin text, p_placement integer, p_writer_epoch bigint,
    p_epoch bigint[], p_seq integer[], p_count integer[], p_origin smallint[],
    p_at bigint[], p_observed_at bigint[], p_price numeric[],
    p_origins text[], p_currencies text[], p_era bigint[], p_prev_epoch bigint[], p_prev_seq integer[],
    OUT stored integer, OUT conflicts integer
) LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_fence(p_coin);
    origin smallint;
    epochs bigint[];
    seqs integer[];
    origins smallint[];
BEGIN
    IF f.placement IS DISTINCT FROM p_placement THEN
        RAISE EXCEPTION 'the coin has another placement' USING ERRCODE = 'CT001';
    ELSIF f.writer_epoch IS DISTINCT FROM p_writer_epoch THEN
        RAISE EXCEPTION 'another writer has this coin' USING ERRCODE = 'CT002';
    ELSIF f.state = 'closed' THEN
        RAISE EXCEPTION 'the fence is closed' USING ERRCODE = 'CT003';
    END IF;
    stored := 0;
    conflicts := 0;
    IF cardinality(p_seq) = 1 AND p_era = '{}' THEN  -- as most are: one run, all new or all there, not the first of an era
        origin := (origin_ids(p_origins, p_currencies))[p_origin[1]];
        IF f.last_epoch IS NULL OR (p_epoch[1], p_seq[1]) > (f.last_epoch, f.last_seq) THEN
            stored := store_run(f.coin_id, origin, p_epoch[1], p_seq[1], p_at, p_observed_at, p_price);
            RETURN;
        ELSIF holds_run(f.coin_id, origin, p_epoch[1], p_seq[1], p_at, p_observed_at, p_price) THEN
            RETURN;
        END IF;
    END IF;
    SELECT array_agg(r.epoch ORDER BY r.n, i), array_agg(r.seq + i ORDER BY r.n, i), array_agg(r.origin ORDER BY r.n, i)
    INTO epochs, seqs, origins
    FROM unnest(p_epoch, p_seq, p_count, p_origin) WITH ORDINALITY AS r (epoch, seq, count, origin, n),
        generate_series(0, r.count - 1) AS i;
    SELECT s.* INTO stored, conflicts FROM store_quotes(
        f, epochs, seqs, ARRAY(SELECT moment(t) FROM unnest(p_at) AS t), ARRAY(SELECT moment(t) FROM unnest(p_observed_at) AS t),
        p_price::text[], origins, p_origins, p_currencies, p_era, p_prev_epoch, p_prev_seq
    ) AS s;
END
$$;

-- The quotes of a coin after a position, ascending. By day, because only the day knows which partition holds a position.
CREATE FUNCTION quotes_after(id integer, p_epoch bigint, p_seq integer, p_limit integer) RETURNS SETOF quote
LANGUAGE plpgsql STABLE AS $$
DECLARE
    left_over integer := p_limit;
    taken integer;
    part text;
BEGIN
    FOR part IN
        SELECT partition_of(d.day) FROM day AS d
        WHERE d.coin_id = id AND (d.last_epoch, d.last_seq) > (p_epoch, p_seq) AND d.dropped_at IS NULL ORDER BY d.day
    LOOP
        RETURN QUERY EXECUTE format(
            'SELECT * FROM %I WHERE coin_id = $1 AND (epoch, seq) > ($2, $3) ORDER BY epoch, seq LIMIT $4', part
        ) USING id, p_epoch, p_seq, left_over;
        GET DIAGNOSTICS taken = ROW_COUNT;
        left_over := left_over - taken;
        EXIT WHEN left_over <= 0;
    END LOOP;
END
$$;

-- The newest quotes of a coin, descending.
CREATE FUNCTION quotes_last(id integer, p_limit integer) RETURNS SETOF quote LANGUAGE plpgsql STABLE AS $$
DECLARE
    left_over integer := p_limit;
    taken integer;
    part text;
BEGIN
    FOR part IN
        SELECT partition_of(d.day) FROM day AS d WHERE d.coin_id = id AND d.dropped_at IS NULL ORDER BY d.day DESC
    LOOP
        RETURN QUERY EXECUTE format(
            'SELECT * FROM %I WHERE coin_id = $1 ORDER BY epoch DESC, seq DESC LIMIT $2', part
        ) USING id, left_over;
        GET DIAGNOSTICS taken = ROW_COUNT;
        left_over := left_over - taken;
        EXIT WHEN left_over <= 0;
    END LOOP;
END
$$;

-- The quotes of a coin between two positions, both included, in no order.
CREATE FUNCTION quotes_through(id integer, f_epoch bigint, f_seq integer, t_epoch bigint, t_seq integer)
RETURNS SETOF quote LANGUAGE plpgsql STABLE AS $$
DECLARE
    part text;
BEGIN
    FOR part IN
        SELECT partition_of(d.day) FROM day AS d
        WHERE d.coin_id = id AND d.dropped_at IS NULL
            AND (d.last_epoch, d.last_seq) >= (f_epoch, f_seq) AND (d.first_epoch, d.first_seq) <= (t_epoch, t_seq)
        ORDER BY d.day
    LOOP
        RETURN QUERY EXECUTE format(
            'SELECT * FROM %I WHERE coin_id = $1 AND (epoch, seq) >= ($2, $3) AND (epoch, seq) <= ($4, $5)', part
        ) USING id, f_epoch, f_seq, t_epoch, t_seq;
    END LOOP;
END
$$;

-- The quotes of a time range, its end excluded, after a position, ascending. The minute's candle knows where to begin.
CREATE FUNCTION quotes_between(
    id integer, p_from timestamptz, p_to timestamptz, p_epoch bigint, p_seq integer, p_limit integer
) RETURNS SETOF quote LANGUAGE plpgsql STABLE AS $$
DECLARE
    begins record;
    left_over integer := p_limit;
    taken integer;
    part text;
BEGIN
    SELECT c.first_epoch AS epoch, c.first_seq AS seq INTO begins FROM candle AS c
    WHERE c.coin_id = id AND c.minutes = 1 AND c.at > p_from - interval '1 minute' AND c.at < p_to
    ORDER BY c.at, c.first_epoch, c.first_seq LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOR part IN
        SELECT partition_of(d.day) FROM day AS d
        WHERE d.coin_id = id AND (d.last_epoch, d.last_seq) > (p_epoch, p_seq) AND d.dropped_at IS NULL
            AND d.day BETWEEN utc_day(p_from) AND utc_day(p_to)
        ORDER BY d.day
    LOOP
        RETURN QUERY EXECUTE format(
            'SELECT * FROM %I WHERE coin_id = $1 AND (epoch, seq) > ($2, $3) AND (epoch, seq) >= ($4, $5)'
            ' AND at >= $6 AND at < $7 ORDER BY epoch, seq LIMIT $8', part
        ) USING id, p_epoch, p_seq, begins.epoch, begins.seq, p_from, p_to, left_over;
        GET DIAGNOSTICS taken = ROW_COUNT;
        left_over := left_over - taken;
        EXIT WHEN left_over <= 0;
    END LOOP;
END
$$;

-- The content of a coin's quotes after a position up to another, day by day, so that two copies can be compared.
-- The digest is a sum over the rows, of which each is hashed with all that it says: sums of parts are the sum of the whole.
CREATE FUNCTION digest_quotes(id integer, a_epoch bigint, a_seq integer, t_epoch bigint, t_seq integer)
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
            $q$SELECT $6::date, count(*), sum(q.price), sum(('x' || left(md5(concat_ws('|',
                q.epoch, q.seq, (extract(epoch FROM q.at) * 1000000)::bigint, (extract(epoch FROM q.observed_at) * 1000000)::bigint,
                q.price, o.name, o.currency,
                CASE WHEN q.seq = 1 THEN
                    (SELECT e.prev_epoch || '-' || e.prev_seq FROM era AS e WHERE e.coin_id = q.coin_id AND e.epoch = q.epoch)
                END)), 16))::bit(64)::bigint)
            FROM %I AS q JOIN origin AS o USING (origin_id)
            WHERE q.coin_id = $1 AND (q.epoch, q.seq) > ($2, $3) AND (q.epoch, q.seq) <= ($4, $5)$q$, d.part
        ) USING id, a_epoch, a_seq, t_epoch, t_seq, d.day;
    END LOOP;
END
$$;

-- The id of a coin whose history is read here. SQLSTATE CT001, with its DETAIL, as in locked_fence.
CREATE FUNCTION home_of(p_coin text) RETURNS integer LANGUAGE plpgsql STABLE AS $$
DECLARE
    f fence;
BEGIN
    SELECT * INTO f FROM fence WHERE coin = p_coin;
    IF NOT FOUND OR f.state = 'incoming' THEN
        RAISE EXCEPTION 'no fence for this coin' USING ERRCODE = 'CT001';
    ELSIF f.state = 'moved' THEN
        RAISE EXCEPTION 'the coin has moved' USING ERRCODE = 'CT001', DETAIL = f.moved_to || ' ' || f.placement + 1;
    END IF;
    RETURN f.coin_id;
END
$$;

-- Carry over what the first form holds.
DO $$
DECLARE
    every smallint[] := (SELECT array_agg(n::smallint) FROM generate_series(1, (SELECT max(origin_id) FROM origin)) AS n);
    f record;
    page record;
BEGIN
    INSERT INTO era (coin_id, epoch, prev_epoch, prev_seq)
    SELECT coin_id, epoch, prev_epoch, prev_seq FROM quote_1 WHERE seq = 1 AND prev_epoch IS NOT NULL;
    FOR f IN SELECT DISTINCT coin_id FROM quote_1 LOOP
        FOR page IN
            SELECT array_agg(q.epoch ORDER BY q.epoch, q.seq) AS epoch, array_agg(q.seq ORDER BY q.epoch, q.seq) AS seq,
                array_agg(q.at ORDER BY q.epoch, q.seq) AS at,
                array_agg(q.observed_at ORDER BY q.epoch, q.seq) AS observed_at,
                array_agg(q.price::text ORDER BY q.epoch, q.seq) AS price,
                array_agg(q.origin_id ORDER BY q.epoch, q.seq) AS origin
            FROM (
                SELECT *, row_number() OVER (ORDER BY epoch, seq) / 10000 AS page FROM quote_1 WHERE coin_id = f.coin_id
            ) AS q GROUP BY q.page ORDER BY q.page
        LOOP
            PERFORM store_new_quotes(
                f.coin_id, page.epoch, page.seq, page.at, page.observed_at, page.price, page.origin, every);
        END LOOP;
    END LOOP;
END
$$;
DROP TABLE quote_1;
