-- works with builds from: 1

-- The indexes of collections that find documents by tokens of their values, and unique ones. What each is of is sealed.
CREATE TABLE bundoc.blind_indexes (
  project text COLLATE "C" NOT NULL,
  -- Never used again.
  id bigint NOT NULL,
  collection bytea NOT NULL,
  key_version integer NOT NULL,
  spec bytea NOT NULL,
  -- Whatever is committed behind this has its entries; documents of before get theirs in the order of their creation, and have them up to built_to.
  since bigint NOT NULL,
  built_to bigint NOT NULL DEFAULT 0,
  -- Documents that were looked at, and that there were.
  indexed bigint NOT NULL DEFAULT 0,
  total bigint NOT NULL,
  -- Of an index that is whole: entries too many of a unique one, else 0. NULL while it is built.
  duplicates bigint,
  -- Nobody uses it, and its entries are being removed.
  dropped boolean NOT NULL DEFAULT false,
  PRIMARY KEY (project, id)
);

-- Which documents have a combination of values, by a token of it. Tokens are HMACs.
CREATE TABLE bundoc.blind_entries (
  project text COLLATE "C" NOT NULL,
  index_id bigint NOT NULL,
  token bytea NOT NULL,
  created_seq bigint NOT NULL,
  name bytea NOT NULL,
  PRIMARY KEY (project, index_id, token, created_seq) INCLUDE (name)
);
CREATE INDEX blind_entries_by_document ON bundoc.blind_entries (project, name);

ALTER TABLE bundoc.heads
  -- Goes up with every change of which indexes a project has, and of what they enforce; gives them their ids.
  ADD COLUMN index_version bigint NOT NULL DEFAULT 0,
  -- In a project that has, or had, such indexes: seq. A build that knows nothing of entries does not set it, and so cannot commit there: what it
  -- wrote would not be found.
  ADD COLUMN index_seq bigint,
  ADD CONSTRAINT heads_entries_are_kept CHECK (index_seq = seq);
