-- From layout 4 to layout 5 (`schema.sql` says what these are): a clock that goes evenly, which begins no earlier
-- than the newest entry, whatever the wall clock says by now; a secret for ids; what hosts agree on, what strangers do,
-- and windows of the inbox that differ.
CREATE TABLE clock (
  id         INTEGER PRIMARY KEY CHECK (id = 1),
  boot_id    TEXT    NOT NULL,
  boot_ms    INTEGER NOT NULL,
  steady_ms  INTEGER NOT NULL,
  wall_ms    INTEGER NOT NULL,
  step_ms    INTEGER NOT NULL DEFAULT 0,
  stepped_ms INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO clock (id, boot_id, boot_ms, steady_ms, wall_ms)
SELECT 1, '', 0, at_ms, at_ms FROM entries ORDER BY id DESC LIMIT 1;
CREATE TABLE ids_key (
  id  INTEGER PRIMARY KEY CHECK (id = 1),
  key BLOB    NOT NULL
) STRICT;
ALTER TABLE subscriptions ADD COLUMN agreed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN strayed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN repeated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN seen_last INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN tended_ms INTEGER NOT NULL DEFAULT 0;
CREATE TRIGGER subscription_stays BEFORE DELETE ON subscriptions BEGIN
  SELECT RAISE(ABORT, 'a group holds the position and the counters of its handler: it is not deleted');
END;
CREATE TABLE wishes (
  subscription   INTEGER NOT NULL,
  consumer TEXT    NOT NULL,
  until_ms INTEGER NOT NULL,
  ended    INTEGER NOT NULL DEFAULT 0,
  wish     TEXT    NOT NULL,
  PRIMARY KEY (subscription, consumer)
) STRICT, WITHOUT ROWID;
ALTER TABLE inbox_buckets ADD COLUMN window_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox_buckets ADD COLUMN ended_ms INTEGER NOT NULL DEFAULT 0;
UPDATE inbox_buckets SET ended_ms =
  coalesce((SELECT n.began_ms FROM inbox_buckets n WHERE n.id > inbox_buckets.id ORDER BY n.id LIMIT 1), 0);
ALTER TABLE inbox_buckets ADD COLUMN over INTEGER NOT NULL DEFAULT 0;
