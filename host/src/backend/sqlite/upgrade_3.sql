-- From layout 2 to layout 3 (`schema.sql` says what these are): timers, and what each version of a plugin has committed.
ALTER TABLE subscriptions ADD COLUMN timers INTEGER NOT NULL DEFAULT 0;
CREATE INDEX due_timers ON due (subscription, due_ms) WHERE kind = 2 AND attempts = 0;
CREATE TABLE versions (
  subscription    INTEGER NOT NULL,
  digest    TEXT    NOT NULL,
  committed INTEGER NOT NULL,
  since_ms  INTEGER NOT NULL,
  PRIMARY KEY (subscription, digest)
) STRICT, WITHOUT ROWID;
