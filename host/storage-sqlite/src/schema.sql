-- The file's layout, version 6. Names that would stand in every row
-- (streams, handlers, consumers) stand once and are numbers elsewhere. Times are milliseconds by the steady clock
-- (`steady.rs`), which began as Unix time; those in `dead`, `audit` and `versions` are for people: Unix time.

-- `added - trimmed` entries lie on the stream now.
CREATE TABLE streams (
  id      INTEGER PRIMARY KEY,
  name    TEXT    NOT NULL UNIQUE,
  added   INTEGER NOT NULL DEFAULT 0,
  trimmed INTEGER NOT NULL DEFAULT 0
) STRICT;

-- One consumer group. `last_id` and `redelivery_id` are its positions in its two queues, `base` is how many entries of
-- the stream came before its start, `delivered` how many it has read since, `paused` 1 while consumption is paused. The
-- rest are its counters: `letters` and `letters_bytes` are its rows in `dead`, `unrun` and `unrun_bytes` those of them
-- that never ran, `evicted_ran` and `evicted_unrun` what the bounds evicted, `strayed` and `repeated` what other
-- programs have done. `seen_last` is `last_id` as of the last `tend`, `tended_ms` when its counters were last checked.
-- `agreed` grows whenever the hosts' wishes change. The row is never deleted: position and counters are nowhere else.
CREATE TABLE subscriptions (
  id         INTEGER PRIMARY KEY,
  stream     INTEGER NOT NULL,
  handler    TEXT    NOT NULL,
  last_id    INTEGER NOT NULL,
  redelivery_id   INTEGER NOT NULL DEFAULT 0,
  base       INTEGER NOT NULL,
  delivered  INTEGER NOT NULL DEFAULT 0,
  committed  INTEGER NOT NULL DEFAULT 0,
  skipped    INTEGER NOT NULL DEFAULT 0,
  duplicates INTEGER NOT NULL DEFAULT 0,
  retried    INTEGER NOT NULL DEFAULT 0,
  dropped    INTEGER NOT NULL DEFAULT 0,
  paused     INTEGER NOT NULL DEFAULT 0,
  timers     INTEGER NOT NULL DEFAULT 0,
  letters       INTEGER NOT NULL DEFAULT 0,
  letters_bytes INTEGER NOT NULL DEFAULT 0,
  unrun         INTEGER NOT NULL DEFAULT 0,
  unrun_bytes   INTEGER NOT NULL DEFAULT 0,
  evicted_ran   INTEGER NOT NULL DEFAULT 0,
  evicted_unrun INTEGER NOT NULL DEFAULT 0,
  agreed     INTEGER NOT NULL DEFAULT 0,
  strayed    INTEGER NOT NULL DEFAULT 0,
  repeated   INTEGER NOT NULL DEFAULT 0,
  seen_last  INTEGER NOT NULL DEFAULT 0,
  tended_ms  INTEGER NOT NULL DEFAULT 0,
  UNIQUE (stream, handler)
) STRICT;
CREATE TRIGGER subscription_stays BEFORE DELETE ON subscriptions BEGIN
  SELECT RAISE(ABORT, 'a group holds the position and the counters of its handler: it is not deleted');
END;

-- What each host wishes of a subscription, and until when that counts; `ended` 1: it has deregistered.
CREATE TABLE wishes (
  subscription   INTEGER NOT NULL,
  consumer TEXT    NOT NULL,
  until_ms INTEGER NOT NULL,
  ended    INTEGER NOT NULL DEFAULT 0,
  wish     TEXT    NOT NULL,
  PRIMARY KEY (subscription, consumer)
) STRICT, WITHOUT ROWID;

-- What each version of a subscription's plugin has committed; the oldest ones together under no digest.
CREATE TABLE versions (
  subscription    INTEGER NOT NULL,
  digest    TEXT    NOT NULL,
  committed INTEGER NOT NULL,
  since_ms  INTEGER NOT NULL,
  PRIMARY KEY (subscription, digest)
) STRICT, WITHOUT ROWID;

-- A consumer is live until `until_ms`; `note` is its last report. AUTOINCREMENT, so that no later consumer inherits a
-- number that is still pending.
CREATE TABLE consumers (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  name     TEXT    NOT NULL UNIQUE,
  until_ms INTEGER NOT NULL,
  note     TEXT    NOT NULL DEFAULT ''
) STRICT;

-- `kind` 0: the body is an event; 1: it is the packed fields of an entry without one; 2: it is the event of a timer,
-- which is never in this table.
-- AUTOINCREMENT, so that ids grow for ever, whatever was trimmed.
CREATE TABLE entries (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  stream INTEGER NOT NULL,
  at_ms  INTEGER NOT NULL,
  kind   INTEGER NOT NULL,
  body   BLOB    NOT NULL
) STRICT;
CREATE INDEX entries_by_stream ON entries (stream);

-- Pending deliveries. `queue` 0: `entry` is in `entries`; 1: in `redelivery`. `consumer` 0: released, without an owner;
-- -1: in quarantine; -3: left for a host that wants it. `crashes`: hosts that died with it since it was read from its
-- queue, the last of them at `crashed_ms`. `alone` 1: it runs in isolation.
CREATE TABLE pending (
  subscription       INTEGER NOT NULL,
  queue         INTEGER NOT NULL,
  entry        INTEGER NOT NULL,
  consumer     INTEGER NOT NULL,
  delivered_ms INTEGER NOT NULL,
  crashes      INTEGER NOT NULL,
  crashed_ms   INTEGER NOT NULL DEFAULT 0,
  alone        INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (subscription, queue, entry)
) STRICT, WITHOUT ROWID;

-- Redelivery: waiting for their time (`due`), due and not finished (`redelivery`), dead-lettered (`dead`).
-- `replayed`, if it was a dead letter before: its number there and how often it was replayed, as `12 1`.
CREATE TABLE due (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  subscription   INTEGER NOT NULL,
  due_ms   INTEGER NOT NULL,
  origin   INTEGER NOT NULL,
  kind     INTEGER NOT NULL,
  body     BLOB    NOT NULL,
  attempts INTEGER NOT NULL,
  crashes  INTEGER NOT NULL,
  history  TEXT    NOT NULL,
  replayed TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX due_by_time ON due (subscription, due_ms);
-- Timers that have not come yet; one that is retried is a retry.
CREATE INDEX due_timers ON due (subscription, due_ms) WHERE kind = 2 AND attempts = 0;

CREATE TABLE redelivery (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  subscription   INTEGER NOT NULL,
  at_ms    INTEGER NOT NULL,
  origin   INTEGER NOT NULL,
  kind     INTEGER NOT NULL,
  body     BLOB    NOT NULL,
  attempts INTEGER NOT NULL,
  crashes  INTEGER NOT NULL,
  history  TEXT    NOT NULL,
  replayed TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX redelivery_by_subscription ON redelivery (subscription);

-- `bytes`: of body, reason and history. `ran` 0: no plugin was given the event.
CREATE TABLE dead (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  subscription   INTEGER NOT NULL,
  at_ms    INTEGER NOT NULL,
  class    TEXT    NOT NULL,
  ran      INTEGER NOT NULL,
  bytes    INTEGER NOT NULL,
  reason   TEXT    NOT NULL,
  origin   INTEGER NOT NULL,
  kind     INTEGER NOT NULL,
  body     BLOB    NOT NULL,
  attempts INTEGER NOT NULL,
  crashes  INTEGER NOT NULL,
  history  TEXT    NOT NULL,
  replayed TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX dead_by_subscription ON dead (subscription);
-- What is evicted first, and how much that frees. The counters of the subscription follow each insert and delete.
CREATE INDEX dead_by_class ON dead (subscription, ran, id, bytes);
CREATE TRIGGER dead_comes AFTER INSERT ON dead BEGIN
  UPDATE subscriptions SET letters = letters + 1, letters_bytes = letters_bytes + NEW.bytes,
                     unrun = unrun + (1 - NEW.ran), unrun_bytes = unrun_bytes + (1 - NEW.ran) * NEW.bytes
  WHERE id = NEW.subscription;
END;
CREATE TRIGGER dead_goes AFTER DELETE ON dead BEGIN
  UPDATE subscriptions SET letters = letters - 1, letters_bytes = letters_bytes - OLD.bytes,
                     unrun = unrun - (1 - OLD.ran), unrun_bytes = unrun_bytes - (1 - OLD.ran) * OLD.bytes
  WHERE id = OLD.subscription;
END;

-- Event ids that were committed (`scope` is a subscription) or published (`scope` is minus a stream), by the bucket of
-- time in which that was. A bucket expires as a whole: no index over time, and its rows lie side by side. `window_ms`:
-- the longest window of the hosts that have written into it; `ended_ms`: when the next one began (0: not yet); `over`
-- 1: lookups skip it, and its rows are being removed.
CREATE TABLE inbox_buckets (
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  began_ms  INTEGER NOT NULL,
  window_ms INTEGER NOT NULL DEFAULT 0,
  ended_ms  INTEGER NOT NULL DEFAULT 0,
  over      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE inbox (
  bucket INTEGER NOT NULL,
  scope  INTEGER NOT NULL,
  event  BLOB    NOT NULL,
  hash   BLOB    NOT NULL,
  PRIMARY KEY (bucket, scope, event)
) STRICT, WITHOUT ROWID;

-- `pairs`: the packed values. Stays when the last value goes, for its version must not restart.
CREATE TABLE state (
  subscription  INTEGER NOT NULL,
  key     TEXT    NOT NULL,
  version INTEGER NOT NULL,
  pairs   BLOB    NOT NULL,
  PRIMARY KEY (subscription, key)
) STRICT, WITHOUT ROWID;

-- Answers to settlements, one byte an entry. `id` grows with time, so the oldest are found without an index over it.
CREATE TABLE receipts (
  id     INTEGER PRIMARY KEY,
  token  BLOB    NOT NULL UNIQUE,
  answer BLOB    NOT NULL,
  at_ms  INTEGER NOT NULL
) STRICT;

-- What people did to a subscription, and to which dead letters (`ids`: numbers, separated by spaces).
CREATE TABLE audit (
  id     INTEGER PRIMARY KEY AUTOINCREMENT,
  subscription INTEGER NOT NULL,
  at_ms  INTEGER NOT NULL,
  verb   TEXT    NOT NULL,
  count  INTEGER NOT NULL,
  ids    TEXT    NOT NULL,
  who    TEXT    NOT NULL,
  note   TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_by_subscription ON audit (subscription);

-- The machine's clocks as last stored, one row: which start of the machine it was, the time since then, the steady
-- clock, and the wall clock. `step_ms`: by how much that was set last, at `stepped_ms` of the steady clock.
CREATE TABLE clock (
  id         INTEGER PRIMARY KEY CHECK (id = 1),
  boot_id    TEXT    NOT NULL,
  boot_ms    INTEGER NOT NULL,
  steady_ms  INTEGER NOT NULL,
  wall_ms    INTEGER NOT NULL,
  step_ms    INTEGER NOT NULL DEFAULT 0,
  stepped_ms INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The secret by which emitted events get their ids, one row.
CREATE TABLE ids_key (
  id  INTEGER PRIMARY KEY CHECK (id = 1),
  key BLOB    NOT NULL
) STRICT;
