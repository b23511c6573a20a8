-- The life of a day: sealed once it takes no further quotes, packed once it is sealed for every coin, dropped once it is
-- older than its coin's retention, and its room given back after that.

CREATE FUNCTION day_end(day date) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT (day + 1)::timestamp AT TIME ZONE 'UTC'
$$;

-- The key of a day's partition, null where there is no partition. Its name is not fixed.
CREATE FUNCTION key_of(day date) RETURNS regclass LANGUAGE sql STABLE AS $$
    SELECT indexrelid::regclass FROM pg_index WHERE indrelid = to_regclass(partition_of(day)) AND indisprimary
$$;

-- The coins that have a row in a day's partition, from the key, one step for each.
CREATE FUNCTION coins_of(day date) RETURNS SETOF integer LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        WITH RECURSIVE held AS (
            SELECT min(coin_id) AS id FROM %1$I
            UNION ALL
            SELECT (SELECT min(q.coin_id) FROM %1$I AS q WHERE q.coin_id > held.id) FROM held WHERE held.id IS NOT NULL
        )
        SELECT id FROM held WHERE id IS NOT NULL$q$, partition_of(day));
END
$$;

-- Write the manifest of a coin's day, which takes no further quotes because one beyond its end has come.
-- All null where the day is not to be sealed (any more). Not sealed where the rows are not as many as were counted.
CREATE FUNCTION seal_day(p_coin text, p_day date, OUT is_sealed boolean, OUT expected bigint, OUT held bigint)
LANGUAGE plpgsql SET lock_timeout = '5s' AS $$
DECLARE
    f fence;
    d day;
    content record;
    again fence;
BEGIN
    SELECT * INTO f FROM fence WHERE coin = p_coin AND state = 'open' AND last_at >= day_end(p_day);
    -- its own statement: the day as it was when its end had passed already, which is for good
    SELECT * INTO d FROM day WHERE coin_id = f.coin_id AND day = p_day AND sealed_at IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    is_sealed := false;
    expected := d.count;
    held := 0;
    IF to_regclass(partition_of(p_day)) IS NULL THEN
        RETURN;
    END IF;
    -- without the coin's lock: these rows do not change, and its writer must not wait until they are read
    SELECT * INTO content
    FROM digest_quotes(d.coin_id, d.first_epoch, d.first_seq - 1, d.last_epoch, d.last_seq) AS q WHERE q.day = p_day;
    held := coalesce(content.count, 0);
    IF held = expected THEN  -- none beside them either
        EXECUTE format('SELECT count(*) FROM %I WHERE coin_id = $1', partition_of(p_day)) INTO held USING d.coin_id;
    END IF;
    IF held <> expected THEN
        RETURN;
    END IF;
    again := locked_fence(p_coin);
    IF again.state <> 'open' OR again.placement <> f.placement THEN
        is_sealed := NULL;
        RETURN;
    END IF;
    UPDATE day AS x SET sum = content.sum, digest = content.digest, sealed_at = now()
    WHERE x.coin_id = d.coin_id AND x.day = p_day AND x.sealed_at IS NULL;
    is_sealed := nullif(FOUND, false);  -- sealed by somebody else meanwhile
END
$$;

-- Drop a coin's oldest day from its history, if it is sealed and lies more than so many days before the newest quote's:
-- from now on it is not read, and the history begins with the day after it. Candles, eras and the manifest stay.
-- Null where nothing was dropped. In order only: a day that has to stay keeps those after it, or there would be a hole.
CREATE FUNCTION drop_day(p_coin text, p_day date, p_retention_days integer, OUT count bigint, OUT epoch bigint, OUT seq integer)
LANGUAGE plpgsql STRICT SET lock_timeout = '5s' AS $$
DECLARE
    f fence := locked_fence(p_coin);
BEGIN
    IF f.state <> 'open' THEN
        RETURN;
    END IF;
    UPDATE day AS d SET dropped_at = now()
    WHERE d.coin_id = f.coin_id AND d.day = p_day AND d.sealed_at IS NOT NULL AND d.dropped_at IS NULL
        AND d.day < utc_day(f.last_at) AND utc_day(f.last_at) - d.day > p_retention_days
        AND NOT EXISTS (SELECT FROM day AS o WHERE o.coin_id = d.coin_id AND o.day < d.day AND o.dropped_at IS NULL)
    RETURNING d.count INTO count;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT d.first_epoch, d.first_seq INTO STRICT epoch, seq
    FROM day AS d WHERE d.coin_id = f.coin_id AND d.dropped_at IS NULL ORDER BY d.day LIMIT 1;
    UPDATE fence SET floor_epoch = epoch, floor_seq = seq WHERE coin_id = f.coin_id;
END
$$;

-- Whether a day has to keep its partition: for a coin that has not dropped it, or not before an instant.
CREATE FUNCTION is_held(p_day date, p_before timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT NOT coalesce(bool_and(coalesce(d.dropped_at < p_before, false)), false)  -- without any coin it may yet get one
        OR EXISTS (SELECT FROM coins_of(p_day) AS id WHERE id <> ALL (array_agg(d.coin_id)))
    FROM day AS d WHERE d.day = p_day
$$;

-- Give back the room of what was dropped from a day before an instant: its partition, or the coins' rows where another
-- coin needs it, which is then to be packed again. Nobody waits behind this for longer than the lock's limit; what is
-- in use stays for the next time.
CREATE FUNCTION erase_day(p_day date, p_before timestamptz, OUT count bigint, OUT is_gone boolean)
LANGUAGE plpgsql SET lock_timeout = '50ms' AS $$
DECLARE
    part text := partition_of(p_day);
    ids integer[];
BEGIN
    count := 0;
    is_gone := false;
    IF to_regclass(part) IS NULL THEN
        RETURN;
    END IF;
    IF NOT is_held(p_day, p_before) THEN
        -- the day's partition first, which nobody needs: all writers wait as long as the table itself is locked
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', part);
        LOCK TABLE ONLY quote IN ACCESS EXCLUSIVE MODE;
        IF NOT is_held(p_day, p_before) THEN  -- its own statement: it sees what was stored before the lock
            EXECUTE format('DROP TABLE %I', part);
            is_gone := true;
        END IF;
        RETURN;
    END IF;
    ids := ARRAY(
        SELECT id FROM coins_of(p_day) AS id JOIN day AS d ON d.coin_id = id
        WHERE d.day = p_day AND d.dropped_at < p_before
    );
    IF ids <> '{}' THEN
        EXECUTE format('ALTER INDEX %s RESET (fillfactor)', key_of(p_day));
        EXECUTE format('DELETE FROM %I WHERE coin_id = ANY ($1)', part) USING ids;
        GET DIAGNOSTICS count = ROW_COUNT;
    END IF;
EXCEPTION WHEN lock_not_available THEN
    count := 0;
    is_gone := false;
END
$$;
