-- The move of a coin from one shard to another. Every function takes the coin's lock, reads the fence after it, and changes
-- nothing where the fence is not as the step needs it: it then returns why not, in words. Done already is done.
--
-- An incoming copy is one under way only under the placement that follows that of the coin's home. Under a lower one it is
-- what an abort, or a move that never came to be, has left behind: to be deleted.

-- The fence of a coin in whatever state, locked to the end of the transaction; all null where there is none.
CREATE FUNCTION locked_copy(id integer) RETURNS fence LANGUAGE plpgsql AS $$
DECLARE
    f fence;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('cotacoes.fence'), id);
    SELECT * INTO f FROM fence WHERE coin_id = id;  -- its own statement: the snapshot must be younger than the lock
    RETURN f;
END
$$;

CREATE FUNCTION copy_words(f fence) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN f.coin_id IS NULL THEN 'it has no copy of the coin'
        ELSE format('its copy of the coin is %s under placement %s', f.state, f.placement) END
$$;

-- Why a copy can not take what a mover sends; null where it can.
CREATE FUNCTION why_not_incoming(f fence, p_placement integer) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN (f.state, f.placement) IS DISTINCT FROM ('incoming', p_placement) THEN copy_words(f) END
$$;

-- Begin a copy, or go on with one.
CREATE FUNCTION begin_copy(id integer, p_coin text, p_placement integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_copy(id);
BEGIN
    IF f.coin_id IS NOT NULL THEN
        RETURN why_not_incoming(f, p_placement);
    END IF;
    INSERT INTO fence (coin_id, coin, placement, state) VALUES (id, p_coin, p_placement, 'incoming');
    RETURN NULL;
END
$$;

-- Take one page of quotes which follows the position `a`, so that no page can be left out; what is there already stays.
CREATE FUNCTION receive_quotes(
    id integer, p_placement integer, a_epoch bigint, a_seq integer,
    p_epoch bigint[], p_seq integer[], p_at timestamptz[], p_observed_at timestamptz[], p_price text[],
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
        f, p_epoch, p_seq, p_at, p_observed_at, p_price, p_origin, p_origins, p_currencies, p_era, p_prev_epoch, p_prev_seq);
    RETURN NULL;
END
$$;

-- Take eras, `[{epoch, prev_epoch, prev_seq}]`: those of days that were dropped come with no quote.
CREATE FUNCTION receive_eras(id integer, p_placement integer, p_eras jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    why text := why_not_incoming(locked_copy(id), p_placement);
BEGIN
    IF why IS NULL THEN
        INSERT INTO era (coin_id, epoch, prev_epoch, prev_seq)
        SELECT id, e.epoch, e.prev_epoch, e.prev_seq FROM jsonb_populate_recordset(NULL::era, p_eras) AS e
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN why;
END
$$;

-- Take conflicts, as they are where they were noted, with the names of their origins.
CREATE FUNCTION receive_conflicts(id integer, p_placement integer, p_conflicts jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    why text := why_not_incoming(locked_copy(id), p_placement);
BEGIN
    IF why IS NULL THEN
        INSERT INTO conflict
        SELECT (jsonb_populate_record(NULL::conflict, w.told || jsonb_build_object('origin_id', w.here))).*
        FROM with_origins(p_conflicts) AS w
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN why;
END
$$;

-- The objects of an array, each with the id that its origin and currency have on this shard.
CREATE FUNCTION with_origins(p_told jsonb) RETURNS TABLE (told jsonb, here smallint) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM origin_ids(array_agg(k.origin), array_agg(k.currency))
    FROM (SELECT DISTINCT t ->> 'origin' AS origin, t ->> 'currency' AS currency FROM jsonb_array_elements(p_told) AS t) AS k;
    RETURN QUERY
    SELECT t, o.origin_id FROM jsonb_array_elements(p_told) AS t
    JOIN origin AS o ON (o.name, o.currency) = (t ->> 'origin', t ->> 'currency');
END
$$;

-- Take a day whose quotes were dropped: what is known of it, and its candles. Quotes of it that came before are dropped too.
CREATE FUNCTION receive_dropped(id integer, p_placement integer, p_day jsonb, p_candles jsonb) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_copy(id);
    why text := why_not_incoming(f, p_placement);
    d day := jsonb_populate_record(NULL::day, p_day);
    starts timestamptz := d.day::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF why IS NOT NULL THEN
        RETURN why;
    END IF;
    IF to_regclass(partition_of(d.day)) IS NOT NULL THEN
        EXECUTE format('DELETE FROM %I WHERE coin_id = $1', partition_of(d.day)) USING id;
    END IF;
    DELETE FROM day AS h WHERE h.coin_id = id AND h.day = d.day;
    INSERT INTO day SELECT d.*;
    DELETE FROM candle AS c WHERE c.coin_id = id AND c.at >= starts AND c.at < starts + interval '1 day';
    INSERT INTO candle
    SELECT (jsonb_populate_record(NULL::candle, w.told || jsonb_build_object('origin_id', w.here))).*
    FROM with_origins(p_candles) AS w;
    UPDATE fence SET last_epoch = d.last_epoch, last_seq = d.last_seq
    WHERE coin_id = id AND (last_epoch IS NULL OR (last_epoch, last_seq) < (d.last_epoch, d.last_seq));
    RETURN NULL;
END
$$;

-- Take the manifest of a sealed day, whose quotes the mover has compared.
CREATE FUNCTION receive_manifest(
    id integer, p_placement integer, p_day date, p_count bigint, p_sum numeric, p_digest numeric, p_sealed_at timestamptz
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    why text := why_not_incoming(locked_copy(id), p_placement);
BEGIN
    IF why IS NULL THEN
        UPDATE day SET sum = p_sum, digest = p_digest, sealed_at = p_sealed_at
        WHERE coin_id = id AND day = p_day AND count = p_count AND dropped_at IS NULL;
    END IF;
    RETURN why;
END
$$;

-- Close the source's fence: from here on the writer waits, and reads go on.
CREATE FUNCTION close_copy(id integer, p_placement integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_copy(id);
BEGIN
    IF f.placement IS DISTINCT FROM p_placement OR f.state NOT IN ('open', 'closed') THEN
        RETURN copy_words(f);
    END IF;
    UPDATE fence SET state = 'closed', changed_at = now() WHERE coin_id = id AND state = 'open';
    RETURN NULL;
END
$$;

-- Open the source's fence again. Only where the copy that was to be opened is certain not to be.
CREATE FUNCTION reopen_copy(id integer, p_placement integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_copy(id);
BEGIN
    IF f.placement IS DISTINCT FROM p_placement OR f.state NOT IN ('open', 'closed') THEN
        RETURN copy_words(f);
    END IF;
    UPDATE fence SET state = 'open', changed_at = now() WHERE coin_id = id AND state = 'closed';
    RETURN NULL;
END
$$;

-- Open the target for reads and writes, for the writer that the source had. Refused unless the copy ends where the mover has
-- verified to, and holds as many quotes as it has verified.
CREATE FUNCTION open_copy(
    id integer, p_placement integer, v_epoch bigint, v_seq integer, v_count bigint,
    p_writer_epoch bigint, p_writer text, p_floor_epoch bigint, p_floor_seq integer, p_last_at timestamptz
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_copy(id);
    why text := why_not_incoming(f, p_placement);
    held bigint;
BEGIN
    IF f.state = 'open' AND f.placement = p_placement THEN
        RETURN NULL;
    ELSIF why IS NOT NULL THEN
        RETURN why;
    END IF;
    SELECT coalesce(sum(d.count), 0) INTO held FROM day AS d WHERE d.coin_id = id;
    IF (f.last_epoch, f.last_seq) IS DISTINCT FROM (v_epoch, v_seq) OR held IS DISTINCT FROM v_count THEN
        RETURN format('its copy holds %s quotes up to %s-%s, and %s up to %s-%s were verified',
                      held, f.last_epoch, f.last_seq, v_count, v_epoch, v_seq);
    END IF;
    UPDATE fence SET
        state = 'open', changed_at = now(), writer_epoch = p_writer_epoch, writer = p_writer,
        floor_epoch = p_floor_epoch, floor_seq = p_floor_seq, last_at = p_last_at
    WHERE coin_id = id;
    RETURN NULL;
END
$$;

-- The source's last step: the coin lives on another shard.
CREATE FUNCTION leave_copy(id integer, p_placement integer, p_to text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_copy(id);
BEGIN
    IF (f.state, f.placement, f.moved_to) IS NOT DISTINCT FROM ('moved', p_placement, p_to) THEN
        RETURN NULL;
    ELSIF (f.state, f.placement) IS DISTINCT FROM ('closed', p_placement) THEN
        RETURN copy_words(f);
    END IF;
    UPDATE fence SET state = 'moved', moved_to = p_to, changed_at = now() WHERE coin_id = id;
    RETURN NULL;
END
$$;

-- Give an incoming copy up: under the placement of the coin's home it can neither be filled nor opened any more.
CREATE FUNCTION give_up_copy(id integer, p_placement integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    f fence := locked_copy(id);
    why text := why_not_incoming(f, p_placement);
BEGIN
    IF f.coin_id IS NULL OR (f.state = 'incoming' AND f.placement < p_placement) THEN
        RETURN NULL;
    ELSIF why IS NULL THEN
        UPDATE fence SET placement = p_placement - 1, changed_at = now() WHERE coin_id = id;
    END IF;
    RETURN why;
END
$$;

-- Delete some of a copy that is nobody's home, from its first quote on; `more` while something is left of it.
-- In small steps, for what is left is read as a prefix that was cut off at its beginning, and locks are short.
CREATE FUNCTION purge_copy(id integer, p_placement integer, p_limit integer, OUT more boolean, OUT why text)
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

-- What the candles of a day say, so that two copies can be compared where the quotes are gone.
CREATE FUNCTION digest_candles(id integer, p_day date) RETURNS TABLE (count bigint, sum numeric, digest numeric)
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(c.count) FILTER (WHERE c.minutes = 1), 0), sum(c.sum), sum(('x' || left(md5(concat_ws('|',
        c.minutes, (extract(epoch FROM c.at) * 1000000)::bigint, o.name, o.currency, c.open, c.high, c.low, c.close, c.sum,
        c.count, c.first_epoch, c.first_seq, c.last_epoch, c.last_seq)), 16))::bit(64)::bigint)
    FROM candle AS c JOIN origin AS o USING (origin_id)
    WHERE c.coin_id = id AND c.at >= p_day::timestamp AT TIME ZONE 'UTC' AND c.at < (p_day + 1)::timestamp AT TIME ZONE 'UTC'
$$;
