-- From layout 4 to layout 5 (`schema.sql` says what these are): a clock that goes evenly, which begins no earlier
-- than the newest entry, whatever the wall clock says by now; and a secret for ids.
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
