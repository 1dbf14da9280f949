-- Which storage this is, and in which generation: the same text as storage.json of the files engine.
CREATE TABLE bundoc.storage (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  file text NOT NULL CONSTRAINT storage_file_is_bounded CHECK (octet_length(file) <= 65536),
  -- By a node; each hour one of them advances the generation.
  changed_at timestamptz NOT NULL DEFAULT now()
);

-- The newest receipts of BunKMS: the same text as kms-receipts.json of the files engine. Nodes change it under the lock of
-- the row, so that none replaces a newer receipt of another one.
CREATE TABLE bundoc.kms_receipts (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  file text NOT NULL CHECK (octet_length(file) <= 65536)
);

-- Projects whose keys this database holds and whose rows it lost: those of an older copy that took over.
-- Each answers project_damaged until an administrator accepts the loss. A row can refuse a project that has
-- no rows, and nothing else.
CREATE TABLE bundoc.lost_projects (
  project text PRIMARY KEY CHECK (octet_length(project) <= 63)
);

CREATE TABLE bundoc.projects (
  project text COLLATE "C" PRIMARY KEY,
  -- The same text as project.json of the files engine.
  file text CONSTRAINT projects_file_is_bounded CHECK (octet_length(file) <= 4194304),
  -- Says that a project is not here, or no longer, beside its file or in its place. It can refuse requests, and nothing else.
  marker text CONSTRAINT projects_marker_is_bounded CHECK (octet_length(marker) <= 65536),
  CHECK (file IS NOT NULL OR marker IS NOT NULL)
);

-- One narrow row a project, locked by every commit: what orders its commits. Beside the file, so that a commit copies little.
CREATE TABLE bundoc.heads (
  project text COLLATE "C" PRIMARY KEY,
  -- Of the last commit.
  seq bigint NOT NULL DEFAULT 0,
  -- Tombstones up to here may be forgotten.
  purged_seq bigint NOT NULL DEFAULT 0,
  -- Everything sealed from now on uses this version of the key, or a later one.
  key_version integer NOT NULL,
  -- Increases with every change of which indexes a project has, and of what they enforce; gives them their ids.
  index_version bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
-- Heads of projects that are about to change hands. Without its head, no node commits to a project or reads from it.
CREATE TABLE bundoc.fenced_heads (LIKE bundoc.heads INCLUDING ALL);

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
  -- The keys of the document in the indexes of its collection; NULL without indexes, and of a tombstone.
  keys bytea,
  PRIMARY KEY (project, name)
);
-- Sealed bytes do not compress, and are read whole.
ALTER TABLE bundoc.documents ALTER COLUMN sealed SET STORAGE EXTERNAL;
ALTER TABLE bundoc.documents ALTER COLUMN keys SET STORAGE EXTERNAL;
-- While a table is small, each of its indexes looks as good as any other, and the server keeps the plan. A
-- look-up by name or token does not imply `seq > 0` or `at_ms > 0`, so it cannot use the indexes with such conditions.
CREATE UNIQUE INDEX documents_by_change ON bundoc.documents (project, seq) WHERE seq > 0;
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
  documents bigint NOT NULL,
  -- How often the version has sealed, sealed under it: a count that anybody could raise would make nodes have the key
  -- rotated. NULL for none yet. A transaction changes it under its project's lock.
  seals bytea,
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
CREATE INDEX used_keys_by_time ON bundoc.used_keys (project, at_ms) WHERE at_ms > 0;

-- Which transactions took effect: asked by a node that lost the connection while one was being committed. One holds commits
-- of several projects, so no project's deletion may remove its row. Times are the server's.
CREATE TABLE bundoc.group_commits (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now()
);

-- Projects that have collections whose documents expire, and when one of the nodes looks at each next.
CREATE TABLE bundoc.expiry (
  project text COLLATE "C" PRIMARY KEY,
  -- Milliseconds since 1970.
  due_ms bigint NOT NULL
);
CREATE INDEX expiry_due ON bundoc.expiry (due_ms);

-- The indexes of collections. Their specifications are sealed. Each has sealed runs in order; unique ones also
-- have tokens.
CREATE TABLE bundoc.indexes (
  project text COLLATE "C" NOT NULL,
  -- Never used again.
  id bigint NOT NULL,
  collection bytea NOT NULL,
  key_version integer NOT NULL,
  spec bytea NOT NULL,
  -- Later commits have written their keys and tokens. Earlier documents get tokens in the order of their creation, and have
  -- them up to built_to.
  since bigint NOT NULL,
  built_to bigint NOT NULL DEFAULT 0,
  -- Documents that were looked at, and that there were.
  indexed bigint NOT NULL DEFAULT 0,
  total bigint NOT NULL,
  -- Of an index that has all tokens, or needs none: entries too many of a unique one, else 0. NULL while it is built.
  duplicates bigint,
  -- Nobody uses it, and its entries are being removed.
  dropped boolean NOT NULL DEFAULT false,
  -- Which runs it has, sealed under a version of the key, as are the runs. NULL before the first; the version is never used again.
  runs_version bigint NOT NULL DEFAULT 0,
  runs_key_version integer,
  -- Documents that changed after it are in no run.
  as_of bigint NOT NULL DEFAULT 0,
  runs bytea CONSTRAINT index_runs_are_bounded CHECK (octet_length(runs) <= 33554432),
  -- Documents in runs that are not whole yet; NULL once they are. And the pages of all runs.
  runs_indexed bigint DEFAULT 0,
  pages bigint NOT NULL DEFAULT 0,
  -- One node builds or merges its runs until then, and which one.
  worked_until timestamptz NOT NULL DEFAULT '-infinity',
  worked_by uuid,
  PRIMARY KEY (project, id)
);
ALTER TABLE bundoc.indexes ALTER COLUMN runs SET STORAGE EXTERNAL;

-- Runs of indexes that are being written, or that readers may still use. A row is removed with its pages.
CREATE TABLE bundoc.index_runs (
  project text COLLATE "C" NOT NULL,
  index_id bigint NOT NULL,
  run bytea NOT NULL,
  -- Since when no index has it. NULL while one has.
  left_at timestamptz DEFAULT now(),
  PRIMARY KEY (project, index_id, run)
);

-- The pages of runs, all of one size. They never change.
CREATE TABLE bundoc.index_pages (
  project text COLLATE "C" NOT NULL,
  -- Random: pages are in no order.
  id bigint NOT NULL,
  run bytea NOT NULL,
  sealed bytea NOT NULL,
  PRIMARY KEY (project, id)
);
ALTER TABLE bundoc.index_pages ALTER COLUMN sealed SET STORAGE EXTERNAL;
CREATE INDEX index_pages_by_run ON bundoc.index_pages (project, run);

-- Which documents have a combination of values, by a token of it. Tokens are HMACs.
CREATE TABLE bundoc.index_tokens (
  project text COLLATE "C" NOT NULL,
  index_id bigint NOT NULL,
  token bytea NOT NULL,
  created_seq bigint NOT NULL,
  name bytea NOT NULL,
  PRIMARY KEY (project, index_id, token, created_seq) INCLUDE (name)
);
CREATE INDEX index_tokens_by_document ON bundoc.index_tokens (project, name);

-- Projects differ in size by orders of magnitude. By the statistics of many small ones, a planner expects one
-- row in a project, and reads all rows of a large one in place of an index's. Without statistics it expects
-- one row of each 200 of the table.
ALTER TABLE bundoc.documents ALTER COLUMN project SET STATISTICS 0;
ALTER TABLE bundoc.used_keys ALTER COLUMN project SET STATISTICS 0;
ALTER TABLE bundoc.index_tokens ALTER COLUMN project SET STATISTICS 0;
ALTER TABLE bundoc.index_pages ALTER COLUMN project SET STATISTICS 0;
