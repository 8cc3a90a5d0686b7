-- From layout 2 to layout 3 (`schema.sql` says what the columns are).
CREATE TABLE versions (
  source    INTEGER NOT NULL,
  digest    TEXT    NOT NULL,
  committed INTEGER NOT NULL,
  since_ms  INTEGER NOT NULL,
  PRIMARY KEY (source, digest)
) STRICT, WITHOUT ROWID;
