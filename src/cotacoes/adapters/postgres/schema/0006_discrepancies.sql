-- Discrepancies: what a history lacks for good, and what was published and is in no history. Each is a row, noted in the
-- transaction that found it, and an alarm until somebody accepts it.

-- Quotes of the writer that lie behind the fence's end and were never stored: published, and not in the history.
-- superseded: another writer had gone on. in_hole: they came after the history had gone on without them.
CREATE TABLE orphan (
    coin_id integer NOT NULL,
    epoch bigint NOT NULL,
    seq integer NOT NULL,
    at timestamptz NOT NULL,
    observed_at timestamptz NOT NULL,
    price numeric NOT NULL,
    origin_id smallint NOT NULL,
    reason text NOT NULL CHECK (reason IN ('superseded', 'in_hole')),
    noted_at timestamptz NOT NULL DEFAULT now(),
    accepted_at timestamptz,
    PRIMARY KEY (coin_id, epoch, seq, at, observed_at, price, origin_id)
);

CREATE INDEX orphan_open ON orphan (coin_id) WHERE accepted_at IS NULL;

-- Positions between two stored quotes that the writer could not send any more; `after` is null before the first quote.
-- not_in_log: the shard ended further back than the writer's log reaches, as one does that was restored from a backup.
CREATE TABLE hole (
    coin_id integer NOT NULL,
    next_epoch bigint NOT NULL,
    next_seq integer NOT NULL,
    after_epoch bigint,
    after_seq integer,
    reason text NOT NULL CHECK (reason IN ('not_in_log')),
    noted_at timestamptz NOT NULL DEFAULT now(),
    accepted_at timestamptz,
    PRIMARY KEY (coin_id, next_epoch, next_seq),
    CHECK ((after_epoch IS NULL) = (after_seq IS NULL))
);

CREATE INDEX hole_open ON hole (coin_id) WHERE accepted_at IS NULL;

CREATE FUNCTION is_in_hole(id integer, p_epoch bigint, p_seq integer) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM hole AS h WHERE h.coin_id = id AND (h.next_epoch, h.next_seq) > (p_epoch, p_seq)
            AND (h.after_epoch IS NULL OR (h.after_epoch, h.after_seq) < (p_epoch, p_seq))
    )
$$;

-- Whether a position was stored and has been dropped by retention since: its era went on at least as far.
CREATE FUNCTION was_dropped(f fence, p_epoch bigint, p_seq integer) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM day AS d WHERE d.coin_id = f.coin_id AND d.dropped_at IS NOT NULL
            AND (p_epoch, p_seq) BETWEEN (d.first_epoch, d.first_seq) AND (d.last_epoch, d.last_seq)
    ) AND (
        f.last_epoch = p_epoch
        OR EXISTS (SELECT FROM era AS e WHERE e.coin_id = f.coin_id AND e.prev_epoch = p_epoch AND e.prev_seq >= p_seq)
    ) AND NOT is_in_hole(f.coin_id, p_epoch, p_seq)
$$;

-- The quotes of a batch, from its runs, in the order in which they came.
CREATE FUNCTION batch_of(
    id integer, ids smallint[], p_epoch bigint[], p_seq integer[], p_count integer[], p_origin smallint[],
    p_at bigint[], p_observed_at bigint[], p_price numeric[]
) RETURNS quote[] LANGUAGE sql STABLE AS $$
    SELECT array_agg(
        ROW(b.epoch, moment(p_at[b.n]), moment(p_observed_at[b.n]), id, b.seq, ids[b.origin], p_price[b.n])::quote
        ORDER BY b.n
    )
    FROM (
        SELECT r.epoch, r.seq + i AS seq, r.origin, row_number() OVER (ORDER BY r.n, i) AS n
        FROM unnest(p_epoch, p_seq, p_count, p_origin) WITH ORDINALITY AS r (epoch, seq, count, origin, n),
            generate_series(0, r.count - 1) AS i
    ) AS b
$$;

-- Judge the quotes of a batch that do not lie beyond the fence's end: each is there already, or another one has its
-- position (a conflict), or it was never stored (refused: an orphan). Both are noted once, and counted each time.
CREATE FUNCTION note_old_quotes(
    f fence, batch quote[], OUT already integer, OUT refused integer, OUT conflicts integer
) LANGUAGE plpgsql AS $$
DECLARE
    lowest bigint[];
    highest bigint[];
BEGIN
    SELECT min(ARRAY[epoch, seq]), max(ARRAY[epoch, seq]) INTO lowest, highest FROM unnest(batch);
    WITH judged AS MATERIALIZED (
        SELECT b.*, h.epoch IS NOT NULL OR was_dropped(f, b.epoch, b.seq) AS is_stored,
            (h.at, h.observed_at, h.price::text, h.origin_id) <> (b.at, b.observed_at, b.price::text, b.origin_id)
                AS is_other
        FROM unnest(batch) AS b
        LEFT JOIN quotes_through(f.coin_id, lowest[1], lowest[2]::integer, highest[1], highest[2]::integer) AS h
            ON (h.epoch, h.seq) = (b.epoch, b.seq)
        WHERE (b.epoch, b.seq) <= (f.last_epoch, f.last_seq)
    ), conflicting AS (
        INSERT INTO conflict (coin_id, epoch, seq, at, observed_at, price, origin_id)
        SELECT j.coin_id, j.epoch, j.seq, j.at, j.observed_at, j.price, j.origin_id FROM judged AS j WHERE j.is_other
        ON CONFLICT DO NOTHING
    ), orphaned AS (
        INSERT INTO orphan (coin_id, epoch, seq, at, observed_at, price, origin_id, reason)
        SELECT j.coin_id, j.epoch, j.seq, j.at, j.observed_at, j.price, j.origin_id,
            CASE WHEN is_in_hole(j.coin_id, j.epoch, j.seq) THEN 'in_hole' ELSE 'superseded' END
        FROM judged AS j WHERE NOT j.is_stored
        ON CONFLICT DO NOTHING
    )
    SELECT count(*) FILTER (WHERE j.is_stored AND j.is_other IS NOT TRUE), count(*) FILTER (WHERE NOT j.is_stored),
        count(*) FILTER (WHERE j.is_other)
    INTO already, refused, conflicts FROM judged AS j;
END
$$;

-- Link quotes that are about to be stored, ascending, to what is stored: note their eras, and the holes before them; how
-- many holes. An era that was begun without the shard, while another writer went on, follows what is stored here,
-- whatever it was begun with.
CREATE FUNCTION link_new_quotes(
    f fence, p_epoch bigint[], p_seq integer[], p_era bigint[], p_prev_epoch bigint[], p_prev_seq integer[]
) RETURNS integer LANGUAGE sql AS $$
    WITH step AS (
        SELECT b.epoch, b.seq,
            coalesce(
                lag(ARRAY[b.epoch, b.seq]) OVER (ORDER BY b.epoch, b.seq),
                CASE WHEN f.last_epoch IS NOT NULL THEN ARRAY[f.last_epoch, f.last_seq] END
            ) AS after,
            CASE WHEN b.seq > 1 THEN ARRAY[b.epoch, b.seq - 1]
                WHEN e.epoch IS NOT NULL THEN ARRAY[e.prev_epoch, e.prev_seq] END AS before
        FROM unnest(p_epoch, p_seq) AS b (epoch, seq)
        LEFT JOIN unnest(p_era, p_prev_epoch, p_prev_seq) AS e (epoch, prev_epoch, prev_seq)
            ON b.seq = 1 AND e.epoch = b.epoch
    ), begun AS (
        INSERT INTO era (coin_id, epoch, prev_epoch, prev_seq)
        SELECT f.coin_id, s.epoch, prev[1], prev[2] FROM step AS s, greatest(s.before, s.after) AS prev
        WHERE s.seq = 1 AND prev IS NOT NULL
        ON CONFLICT DO NOTHING
    ), missing AS (
        INSERT INTO hole (coin_id, next_epoch, next_seq, after_epoch, after_seq, reason)
        SELECT f.coin_id, s.epoch, s.seq, s.after[1], s.after[2], 'not_in_log' FROM step AS s
        WHERE s.before > s.after OR (s.after IS NULL AND s.before IS NOT NULL)
        RETURNING 1
    )
    SELECT count(*)::integer FROM missing
$$;

-- Store one batch of the coin's writer, all or nothing, in one round trip; what is there already stays. Each quote of it
-- is one of the four that are counted. SQLSTATEs as in become_writer, and CT004: the shard is not where the writer left
-- it (as after the restore of a backup), so that the writer has to ask how far it is before it goes on behind a hole.
-- Positions come as runs (the first one, how many, their origin), times in microseconds since 1970; `p_end` is the
-- shard's end as the writer knows it.
DROP FUNCTION append_quotes;
CREATE FUNCTION append_quotes(
    p_coin text, p_placement integer, p_writer_epoch bigint, p_end_epoch bigint, p_end_seq integer,
    p_epoch bigint[], p_seq integer[], p_count integer[], p_origin smallint[],
    p_at bigint[], p_observed_at bigint[], p_price numeric[],
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
    IF cardinality(p_seq) = 1 AND p_era = '{}' THEN  -- as most are: one run that follows the end, or is there
        IF (f.last_epoch, f.last_seq) = (p_epoch[1], p_seq[1] - 1) THEN
            stored := store_run(f.coin_id, ids[p_origin[1]], p_epoch[1], p_seq[1], p_at, p_observed_at, p_price);
            RETURN;
        ELSIF (f.last_epoch, f.last_seq) >= (p_epoch[1], p_seq[1])
            AND holds_run(f.coin_id, ids[p_origin[1]], p_epoch[1], p_seq[1], p_at, p_observed_at, p_price) THEN
            already := n;
            RETURN;
        END IF;
    END IF;

    batch := batch_of(f.coin_id, ids, p_epoch, p_seq, p_count, p_origin, p_at, p_observed_at, p_price);
    IF f.last_epoch IS NOT NULL THEN
        SELECT o.* INTO already, refused, conflicts FROM note_old_quotes(f, batch) AS o;
    END IF;
    SELECT array_agg(b.epoch) AS epoch, array_agg(b.seq) AS seq, array_agg(b.at) AS at,
        array_agg(b.observed_at) AS observed_at, array_agg(b.price::text) AS price,
        array_agg(array_position(ids, b.origin_id)::smallint) AS origin, sum(b.copies - 1)::integer AS doubles
    INTO new
    FROM (
        SELECT DISTINCT ON (b.epoch, b.seq) b.*, count(*) OVER (PARTITION BY b.epoch, b.seq) AS copies FROM unnest(batch) WITH ORDINALITY
            AS b (epoch, at, observed_at, coin_id, seq, origin_id, price, n)
        WHERE f.last_epoch IS NULL OR (b.epoch, b.seq) > (f.last_epoch, f.last_seq)
        ORDER BY b.epoch, b.seq, b.n
    ) AS b;
    IF new.seq IS NULL THEN
        RETURN;
    ELSIF link_new_quotes(f, new.epoch, new.seq, p_era, p_prev_epoch, p_prev_seq) > 0
        AND (p_end_epoch, p_end_seq) IS DISTINCT FROM (f.last_epoch, f.last_seq) THEN
        RAISE EXCEPTION 'the history ends at another position' USING ERRCODE = 'CT004';
    END IF;
    stored := store_new_quotes(f.coin_id, new.epoch, new.seq, new.at, new.observed_at, new.price, new.origin, ids);
    already := already + new.doubles;
END
$$;

-- Give the coin to a writer under a new era, above all that are known here and not below `p_least`; its number. `p_held` is
-- the era that the writer has had so far, null: none. SQLSTATE CT001 moved, CT002 another writer came after it, CT003 closed.
CREATE FUNCTION claim_fence(p_coin text, p_least bigint, p_held bigint, p_writer text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_fence(p_coin);
    number bigint := greatest(p_least, f.writer_epoch + 1, f.last_epoch + 1);
BEGIN
    IF f.writer_epoch > p_held AND f.writer <> p_writer THEN
        RAISE EXCEPTION 'a newer writer has this coin' USING ERRCODE = 'CT002';
    ELSIF f.state = 'closed' THEN
        RAISE EXCEPTION 'the fence is closed' USING ERRCODE = 'CT003';
    END IF;
    UPDATE fence SET writer_epoch = number, writer = p_writer WHERE coin_id = f.coin_id;
    RETURN number;
END
$$;

-- Accept what was noted of a coin so far; how many holes and orphans. SQLSTATEs as in become_writer.
CREATE FUNCTION accept_discrepancies(p_coin text, OUT holes integer, OUT orphans integer) LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_fence(p_coin);
BEGIN
    IF f.state = 'closed' THEN  -- a move has copied them, and would not copy this
        RAISE EXCEPTION 'the fence is closed' USING ERRCODE = 'CT003';
    END IF;
    UPDATE hole SET accepted_at = now() WHERE coin_id = f.coin_id AND accepted_at IS NULL;
    GET DIAGNOSTICS holes = ROW_COUNT;
    UPDATE orphan SET accepted_at = now() WHERE coin_id = f.coin_id AND accepted_at IS NULL;
    GET DIAGNOSTICS orphans = ROW_COUNT;
END
$$;

-- In a move: take what was kept aside, as it stands where it was noted, with the names of its origins. What is here
-- already takes over whether it was accepted.
DROP FUNCTION receive_conflicts;
CREATE FUNCTION receive_asides(id integer, p_placement integer, p_conflicts jsonb, p_orphans jsonb, p_holes jsonb)
RETURNS text LANGUAGE plpgsql AS $$
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
    ON CONFLICT (coin_id, epoch, seq, at, observed_at, price, origin_id)
        DO UPDATE SET accepted_at = excluded.accepted_at;
    INSERT INTO hole SELECT h.* FROM jsonb_populate_recordset(NULL::hole, p_holes) AS h
    ON CONFLICT (coin_id, next_epoch, next_seq) DO UPDATE SET accepted_at = excluded.accepted_at;
    RETURN NULL;
END
$$;

-- As before, and what was noted of the coin goes with the copy.
CREATE OR REPLACE FUNCTION purge_copy(id integer, p_placement integer, p_limit integer, OUT more boolean, OUT why text)
LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_copy(id);
    d day;
    rest bigint[];
BEGIN
    more := false;
    IF f.coin_id IS NULL THEN
        RETURN;
    ELSIF f.state NOT IN ('moved', 'incoming') OR f.placement <> p_placement THEN
        why := copy_words(f);
        RETURN;
    END IF;
    SELECT * INTO d FROM day AS h WHERE h.coin_id = id ORDER BY h.day LIMIT 1;
    IF NOT FOUND THEN
        DELETE FROM candle WHERE coin_id = id;
        DELETE FROM era WHERE coin_id = id;
        DELETE FROM conflict WHERE coin_id = id;
        DELETE FROM orphan WHERE coin_id = id;
        DELETE FROM hole WHERE coin_id = id;
        DELETE FROM fence WHERE coin_id = id;
        RETURN;
    END IF;
    more := true;
    IF to_regclass(partition_of(d.day)) IS NOT NULL THEN
        EXECUTE format(
            'DELETE FROM %1$I WHERE coin_id = $1 AND (epoch, seq) <= ('
            ' SELECT e, s FROM (SELECT epoch AS e, seq AS s FROM %1$I WHERE coin_id = $1 ORDER BY epoch, seq LIMIT $2) AS few'
            ' ORDER BY e DESC, s DESC LIMIT 1)', partition_of(d.day)
        ) USING id, p_limit;
        EXECUTE format('SELECT ARRAY[epoch, seq] FROM %I WHERE coin_id = $1 ORDER BY epoch, seq LIMIT 1', partition_of(d.day))
        INTO rest USING id;
    END IF;
    IF rest IS NULL THEN
        DELETE FROM candle AS c WHERE c.coin_id = id AND c.at < (d.day + 1)::timestamp AT TIME ZONE 'UTC';
        DELETE FROM day AS h WHERE h.coin_id = id AND h.day = d.day;
    ELSE
        UPDATE day AS h SET first_epoch = rest[1], first_seq = rest[2] WHERE h.coin_id = id AND h.day = d.day;
    END IF;
END
$$;
