-- The ledger: what one shard stores. Every shard has all of it; `directory` is read on shard1 only.

CREATE TABLE directory (
    coin text PRIMARY KEY CHECK (coin ~ '^[a-z0-9-]{1,32}$'),
    coin_id integer NOT NULL UNIQUE CHECK (coin_id > 0),
    shard text NOT NULL,
    placement integer NOT NULL CHECK (placement > 0)
);

-- One row per coin that lives here, with the last word on who may write it. The last position stands here because the
-- key of `quote` can not tell it without opening every day's partition.
CREATE TABLE fence (
    coin_id integer PRIMARY KEY CHECK (coin_id > 0),
    coin text NOT NULL UNIQUE CHECK (coin ~ '^[a-z0-9-]{1,32}$'),
    placement integer NOT NULL CHECK (placement > 0),
    writable boolean NOT NULL DEFAULT true,
    writer_epoch bigint NOT NULL DEFAULT 0,
    writer text NOT NULL DEFAULT '',
    floor_epoch bigint,
    floor_seq integer,
    last_epoch bigint,
    last_seq integer
) WITH (fillfactor = 50);

CREATE TABLE origin (
    origin_id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    currency text NOT NULL,
    UNIQUE (name, currency)
);

CREATE TABLE quote (
    coin_id integer NOT NULL,
    epoch bigint NOT NULL CHECK (epoch > 0),
    seq integer NOT NULL CHECK (seq > 0),
    at timestamptz NOT NULL,
    observed_at timestamptz NOT NULL,
    price numeric NOT NULL CHECK (price > 0 AND price < 'Infinity'),  -- NaN sorts above Infinity, so it is refused too
    origin_id smallint NOT NULL,
    prev_epoch bigint,
    prev_seq integer,
    PRIMARY KEY (coin_id, epoch, seq, at)
) PARTITION BY RANGE (at);

CREATE INDEX quote_at ON quote USING brin (at);

-- For people with psql.
CREATE VIEW quotes AS
SELECT f.coin, q.epoch || '-' || q.seq AS position, q.at, q.observed_at, q.price, o.currency, o.name AS origin
FROM quote AS q
JOIN fence AS f USING (coin_id)
JOIN origin AS o USING (origin_id);

-- Make the partition of one UTC day. LIKE and ATTACH, because CREATE … PARTITION OF would lock out every reader.
CREATE FUNCTION prepare_day(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    part text := 'quote_' || to_char(day, 'YYYYMMDD');
    starts timestamptz := day::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('cotacoes.prepare_day'), 0);
    -- not by to_regclass, which may still answer from a cache that the wait for the lock has not renewed
    IF EXISTS (SELECT FROM pg_class WHERE relname = part AND relnamespace = current_schema()::regnamespace) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE quote INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part);
    EXECUTE format('ALTER TABLE quote ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, starts,
                   (day + 1)::timestamp AT TIME ZONE 'UTC');
END
$$;

-- Take the coin over for a writer. SQLSTATE CT001 moved, CT002 superseded, CT003 closed.
CREATE FUNCTION become_writer(p_coin text, p_epoch bigint, p_writer text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    id integer := (SELECT coin_id FROM fence WHERE coin = p_coin);
    f fence;
BEGIN
    IF id IS NULL THEN
        RAISE EXCEPTION 'no fence for this coin' USING ERRCODE = 'CT001';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('cotacoes.fence'), id);  -- exclusive: waits for batches under way
    SELECT * INTO f FROM fence WHERE coin_id = id;  -- its own statement: the snapshot must be younger than the lock
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no fence for this coin' USING ERRCODE = 'CT001';
    ELSIF f.writer_epoch > p_epoch OR (f.writer_epoch = p_epoch AND f.writer <> p_writer) THEN
        RAISE EXCEPTION 'a newer writer has this coin' USING ERRCODE = 'CT002';
    END IF;
    UPDATE fence SET writer_epoch = p_epoch, writer = p_writer WHERE coin_id = id;
END
$$;

-- Store one batch, all or nothing, in one round trip; what is there already stays. SQLSTATEs as in become_writer.
CREATE FUNCTION append_quotes(
    p_coin text, p_placement integer, p_writer_epoch bigint,
    p_epoch bigint[], p_seq integer[], p_at timestamptz[], p_observed_at timestamptz[], p_price text[],
    p_origin text[], p_currency text[], p_prev_epoch bigint[], p_prev_seq integer[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    id integer := (SELECT coin_id FROM fence WHERE coin = p_coin);
    n integer := cardinality(p_seq);
    f fence;
BEGIN
    IF id IS NULL THEN
        RAISE EXCEPTION 'no fence for this coin' USING ERRCODE = 'CT001';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(hashtext('cotacoes.fence'), id);
    SELECT * INTO f FROM fence WHERE coin_id = id;  -- its own statement: the snapshot must be younger than the lock
    IF NOT FOUND OR f.placement IS DISTINCT FROM p_placement THEN
        RAISE EXCEPTION 'the coin has another placement' USING ERRCODE = 'CT001';
    ELSIF f.writer_epoch IS DISTINCT FROM p_writer_epoch THEN
        RAISE EXCEPTION 'another writer has this coin' USING ERRCODE = 'CT002';
    ELSIF NOT f.writable THEN
        RAISE EXCEPTION 'the fence is closed' USING ERRCODE = 'CT003';
    END IF;

    PERFORM prepare_day(day) FROM (SELECT DISTINCT (t AT TIME ZONE 'UTC')::date FROM unnest(p_at) AS t) AS days (day);
    INSERT INTO origin (name, currency)
    SELECT DISTINCT b.name, b.currency FROM unnest(p_origin, p_currency) AS b (name, currency)
    WHERE NOT EXISTS (SELECT FROM origin AS o WHERE o.name = b.name AND o.currency = b.currency)
    ON CONFLICT DO NOTHING;
    INSERT INTO quote (coin_id, epoch, seq, at, observed_at, price, origin_id, prev_epoch, prev_seq)
    SELECT id, b.epoch, b.seq, b.at, b.observed_at, b.price::numeric, o.origin_id, b.prev_epoch, b.prev_seq
    FROM unnest(p_epoch, p_seq, p_at, p_observed_at, p_price, p_origin, p_currency, p_prev_epoch, p_prev_seq)
        AS b (epoch, seq, at, observed_at, price, origin, currency, prev_epoch, prev_seq)
    JOIN origin AS o ON o.name = b.origin AND o.currency = b.currency
    ON CONFLICT DO NOTHING;
    UPDATE fence SET
        floor_epoch = coalesce(floor_epoch, p_epoch[1]), floor_seq = coalesce(floor_seq, p_seq[1]),
        last_epoch = p_epoch[n], last_seq = p_seq[n]
    WHERE coin_id = id AND (last_epoch IS NULL OR (last_epoch, last_seq) < (p_epoch[n], p_seq[n]));
END
$$;
