-- From layout 3 to layout 4 (`schema.sql` says what these are): dead letters bounded by class and bytes.
ALTER TABLE subscriptions ADD COLUMN letters INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN letters_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN unrun INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN unrun_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN evicted_ran INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN evicted_unrun INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead ADD COLUMN ran INTEGER NOT NULL DEFAULT 1;
ALTER TABLE dead ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE dead SET
  ran = NOT (class IN ('undecodable', 'invalid', 'unknown', 'conflict') AND history = '[]'),
  bytes = length(body) + length(CAST(reason AS BLOB)) + length(CAST(history AS BLOB));
UPDATE subscriptions SET
  letters = (SELECT count(*) FROM dead d WHERE d.subscription = subscriptions.id),
  letters_bytes = (SELECT coalesce(sum(d.bytes), 0) FROM dead d WHERE d.subscription = subscriptions.id),
  unrun = (SELECT count(*) FROM dead d WHERE d.subscription = subscriptions.id AND NOT d.ran),
  unrun_bytes = (SELECT coalesce(sum(d.bytes), 0) FROM dead d WHERE d.subscription = subscriptions.id AND NOT d.ran);
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
