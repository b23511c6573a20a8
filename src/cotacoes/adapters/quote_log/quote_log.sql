-- name: schema
-- Create the tables that are missing. Times are microseconds since 1970, prices decimal text, agreements as `5/6 12.34`.
CREATE TABLE IF NOT EXISTS coin (
    name TEXT PRIMARY KEY, epoch INTEGER NOT NULL,
    delivered_epoch INTEGER, delivered_seq INTEGER, floor_epoch INTEGER, floor_seq INTEGER, cursor TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (
    coin TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, observed_at INTEGER NOT NULL,
    price TEXT NOT NULL, currency TEXT NOT NULL, origin TEXT NOT NULL, prev_epoch INTEGER, prev_seq INTEGER,
    recorded_at INTEGER, agreement TEXT,
    PRIMARY KEY (coin, epoch, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS source_gap (
    after TEXT NOT NULL, next TEXT NOT NULL, noted_at INTEGER NOT NULL, PRIMARY KEY (after, next)
) STRICT, WITHOUT ROWID;

-- name: coins
-- Every coin with its last epoch, its marks and the source's cursor.
SELECT name, epoch, cursor, delivered_epoch, delivered_seq, floor_epoch, floor_seq FROM coin;

-- name: coin
-- The same for one coin.
SELECT name, epoch, cursor, delivered_epoch, delivered_seq, floor_epoch, floor_seq FROM coin WHERE name = ?;

-- name: begin_epoch
-- Remember an epoch: coin, epoch.
INSERT INTO coin (name, epoch) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch;

-- name: mark
-- Remember the last position delivered, the floor and the source's cursor: two positions, cursor, coin.
UPDATE coin SET delivered_epoch = ?, delivered_seq = ?, floor_epoch = ?, floor_seq = ?, cursor = ? WHERE name = ?;

-- name: link
-- Set the position before an epoch: a position, coin, epoch.
UPDATE entry SET prev_epoch = ?, prev_seq = ? WHERE coin = ? AND epoch = ? AND seq = 1;

-- name: note_source_gap
-- Remember a hole of the source's tape: the cursor before it, the one after it, the time.
INSERT OR IGNORE INTO source_gap (after, next, noted_at) VALUES (?, ?, ?);

-- name: source_gaps
-- All holes of the source's tape, oldest first.
SELECT after, next, noted_at FROM source_gap ORDER BY noted_at;

-- name: insert
-- Insert an entry; its position must be new.
INSERT INTO entry (/* quote_columns */, recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: insert_plain
-- The same without an agreement. To bind a further null costs a tenth of an insert.
INSERT INTO entry (/* plain_columns */, recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: insert_known
-- Insert an entry read from the shard, unless it is there already.
INSERT OR IGNORE INTO entry (/* quote_columns */, recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: after
-- The entries after a position, ascending: coin, epoch, seq, limit.
SELECT /* quote_columns */ FROM entry WHERE coin = ? AND (epoch, seq) > (?, ?) ORDER BY epoch, seq LIMIT ?;

-- name: before
-- The newest entries before a position, descending: coin, epoch, seq, limit.
SELECT /* quote_columns */ FROM entry WHERE coin = ? AND (epoch, seq) < (?, ?) ORDER BY epoch DESC, seq DESC LIMIT ?;

-- name: recent
-- The time and price of the newest entries, descending: coin, limit, start time.
SELECT at, price FROM (SELECT at, price FROM entry WHERE coin = ? ORDER BY epoch DESC, seq DESC LIMIT ?) WHERE at >= ?;

-- name: count_after
-- How many entries lie after a position: coin, epoch, seq.
SELECT count(*) FROM entry WHERE coin = ? AND (epoch, seq) > (?, ?);

-- name: time_after
-- The time of the first entry after a position: coin, epoch, seq.
SELECT at FROM entry WHERE coin = ? AND (epoch, seq) > (?, ?) ORDER BY epoch, seq LIMIT 1;

-- name: trim_bounds
-- Where dropping ends: the last position delivered, and the entry that has `kept` newer ones; null if there is none.
SELECT c.delivered_epoch, c.delivered_seq, k.epoch, k.seq
FROM coin AS c
LEFT JOIN (SELECT epoch, seq FROM entry WHERE coin = :coin ORDER BY epoch DESC, seq DESC LIMIT 1 OFFSET :kept) AS k
WHERE c.name = :coin;

-- name: trim_beyond
-- The entry at which to stop if too many would be dropped at once: coin, epoch, seq, the limit.
SELECT epoch, seq FROM entry WHERE coin = ? AND (epoch, seq) < (?, ?) ORDER BY epoch, seq LIMIT 1 OFFSET ?;

-- name: trim_young
-- The first entry before a position that was recorded after a time: coin, epoch, seq, time.
SELECT epoch, seq FROM entry WHERE coin = ? AND (epoch, seq) < (?, ?) AND recorded_at > ?
ORDER BY epoch, seq LIMIT 1;

-- name: trim
-- Drop the entries before a position: coin, epoch, seq. With a subquery as the position, SQLite would search by the epoch
-- alone and read through a long backlog each time.
DELETE FROM entry WHERE coin = ? AND (epoch, seq) < (?, ?);
