-- From layout 1 to layout 2 (`schema.sql` says what the columns are).
ALTER TABLE subscriptions ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE consumers ADD COLUMN note TEXT NOT NULL DEFAULT '';
ALTER TABLE pending ADD COLUMN crashed_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pending ADD COLUMN alone INTEGER NOT NULL DEFAULT 0;
ALTER TABLE due ADD COLUMN replayed TEXT NOT NULL DEFAULT '';
ALTER TABLE again ADD COLUMN replayed TEXT NOT NULL DEFAULT '';
ALTER TABLE dead ADD COLUMN replayed TEXT NOT NULL DEFAULT '';
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
