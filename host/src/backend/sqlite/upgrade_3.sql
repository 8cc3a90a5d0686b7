-- From layout 2 to layout 3 (`schema.sql` says what these are).
ALTER TABLE sources ADD COLUMN timers INTEGER NOT NULL DEFAULT 0;
CREATE INDEX due_timers ON due (source, due_ms) WHERE kind = 2 AND attempts = 0;
