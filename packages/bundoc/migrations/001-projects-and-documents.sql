-- works with builds from: 1

-- What says what a project is: the same text as project.json of the files engine.
CREATE TABLE bundoc.projects (
  project text COLLATE "C" PRIMARY KEY,
  file text NOT NULL
);

-- One narrow row a project, locked by every commit: what orders its commits. Beside the file, so that a commit copies little.
CREATE TABLE bundoc.heads (
  project text COLLATE "C" PRIMARY KEY,
  -- Of the last commit.
  seq bigint NOT NULL DEFAULT 0,
  -- Tombstones up to here may be forgotten.
  purged_seq bigint NOT NULL DEFAULT 0,
  -- What is sealed from now on is sealed under this version of the key, or a later one.
  key_version integer NOT NULL
) WITH (fillfactor = 50);

-- A row for each document and each tombstone. Names are HMACs, bytes are sealed.
CREATE TABLE bundoc.documents (
  project text COLLATE "C" NOT NULL,
  name bytea NOT NULL,
  collection bytea NOT NULL,
  seq bigint NOT NULL,
  created_seq bigint NOT NULL,
  deleted_ms bigint NOT NULL,
  key_version integer NOT NULL,
  rev bytea NOT NULL,
  state bytea NOT NULL,
  sealed bytea,
  PRIMARY KEY (project, name)
);
-- Sealed bytes do not compress, and a part of them is never asked for.
ALTER TABLE bundoc.documents ALTER COLUMN sealed SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX documents_by_change ON bundoc.documents (project, seq);
CREATE UNIQUE INDEX documents_by_creation ON bundoc.documents (project, collection, created_seq) WHERE deleted_ms = 0;
CREATE INDEX documents_deleted ON bundoc.documents (project, deleted_ms) WHERE deleted_ms > 0;

CREATE TABLE bundoc.collections (
  project text COLLATE "C" NOT NULL,
  token bytea NOT NULL,
  first_seq bigint NOT NULL,
  key_version integer NOT NULL,
  name bytea NOT NULL,
  documents bigint NOT NULL,
  bytes bigint NOT NULL,
  PRIMARY KEY (project, token)
) WITH (fillfactor = 50);

CREATE TABLE bundoc.key_versions (
  project text COLLATE "C" NOT NULL,
  version integer NOT NULL,
  -- Reserved, which is at least as many as were made.
  seals bigint NOT NULL,
  documents bigint NOT NULL,
  PRIMARY KEY (project, version)
) WITH (fillfactor = 50);

CREATE TABLE bundoc.used_keys (
  project text COLLATE "C" NOT NULL,
  token bytea NOT NULL,
  at_ms bigint NOT NULL,
  key_version integer NOT NULL,
  answer bytea NOT NULL,
  PRIMARY KEY (project, token)
);
CREATE INDEX used_keys_by_time ON bundoc.used_keys (project, at_ms);

-- Which transactions took effect: asked by who lost the connection while one was being committed. Ids are UUIDs of version 7, so that
-- those of an hour ago are a range.
CREATE TABLE bundoc.commits (
  project text COLLATE "C" NOT NULL,
  id uuid NOT NULL,
  PRIMARY KEY (project, id)
);
