-- schema.txt lists what this makes, line by line: BunKMS compares each database with it.
-- Texts compare by their bytes, as they do elsewhere in the service.

CREATE TABLE installation (
  id smallint PRIMARY KEY CHECK (id = 1),
  created_at text NOT NULL,
  chain_key_wrapped bytea NOT NULL,
  signing_seed_wrapped bytea NOT NULL,
  signing_key text NOT NULL
);

CREATE TABLE keks (
  id text COLLATE "C" PRIMARY KEY,
  check_value text NOT NULL,
  added_at text COLLATE "C" NOT NULL
);

CREATE TABLE keys (
  id text COLLATE "C" PRIMARY KEY,
  name text COLLATE "C" NOT NULL UNIQUE,
  type text NOT NULL,
  state text NOT NULL,
  version integer NOT NULL,
  revision integer NOT NULL,
  exportable boolean NOT NULL,
  rotate_after_days integer,
  due_at text COLLATE "C",
  created_at text COLLATE "C" NOT NULL,
  destroyed_at text,
  kek_ids text NOT NULL,
  idempotency_key text COLLATE "C",
  idempotency_request text,
  version_digests bytea NOT NULL,
  holder text COLLATE "C",
  offered_to text,
  move text,
  offer_generation text,
  intended_at text,
  outside text
);
ALTER TABLE keys ALTER COLUMN version_digests SET STORAGE EXTERNAL;
CREATE INDEX keys_by_due ON keys (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX keys_by_idempotency ON keys (idempotency_key, created_at) WHERE idempotency_key IS NOT NULL;
CREATE INDEX keys_by_deletion ON keys (holder, name) WHERE intended_at IS NOT NULL AND holder IS NOT NULL;

CREATE TABLE key_versions (
  key_id text COLLATE "C" NOT NULL REFERENCES keys (id),
  version integer NOT NULL,
  kcv text NOT NULL,
  state text NOT NULL,
  created_at text NOT NULL,
  destroyed_at text,
  wrapped bytea NOT NULL,
  PRIMARY KEY (key_id, version)
);
-- Ciphertext does not compress.
ALTER TABLE key_versions ALTER COLUMN wrapped SET STORAGE EXTERNAL;
CREATE INDEX key_versions_by_kek ON key_versions (substr(wrapped, 2, 8), key_id) WHERE length(wrapped) > 0;

CREATE TABLE tokens (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  jti text COLLATE "C" NOT NULL UNIQUE,
  family text COLLATE "C" NOT NULL,
  sub text NOT NULL,
  typ text NOT NULL,
  aud text NOT NULL,
  scope text NOT NULL,
  keys text NOT NULL,
  projects text NOT NULL,
  issued_at text NOT NULL,
  expires_at text COLLATE "C" NOT NULL,
  revoked_at text COLLATE "C",
  issuer text COLLATE "C",
  may_issue text
);
CREATE INDEX tokens_by_family ON tokens (family, expires_at);
CREATE INDEX tokens_by_expiry ON tokens (expires_at);

-- "write_id" names the transaction that wrote the record: by it a node finds out what became of one whose end it did not hear.
CREATE TABLE audit (
  seq bigint PRIMARY KEY,
  time text COLLATE "C" NOT NULL,
  severity text NOT NULL,
  action text COLLATE "C" NOT NULL,
  outcome text NOT NULL,
  actor text COLLATE "C",
  jti text,
  key text COLLATE "C",
  version integer,
  source text,
  request_id text,
  code text,
  detail text COLLATE "C",
  prev_hash text NOT NULL,
  hash text NOT NULL,
  write_id uuid NOT NULL
);
CREATE INDEX audit_by_key ON audit (key, seq);
CREATE INDEX audit_by_actor ON audit (actor, seq);
CREATE INDEX audit_by_time ON audit (time);
CREATE INDEX audit_but_bulk ON audit (seq)
  WHERE action NOT IN ('key.export', 'key.encrypt', 'key.decrypt', 'key.rewrap', 'kek.rewrap', 'key.read', 'key.list', 'key.leases');
CREATE INDEX audit_restores ON audit ((-seq)) WHERE action = 'chain.restored';
CREATE INDEX audit_keks ON audit (seq)
  WHERE action IN ('vault.initialised', 'kek.stage', 'kek.rotate', 'kek.rewrapped', 'kek.retire');
-- The latest change of a key, and the latest state of a storage. Ordered by a number that no other index has: by "seq" itself the planner may rather walk
-- the whole chain backwards from its end, and does when there are few keys.
CREATE INDEX audit_last_changes ON audit (key, (-seq)) WHERE strpos(detail, '"revision":') > 0;
CREATE INDEX audit_storages ON audit ((detail::jsonb ->> 'storage'), (-seq))
  WHERE action IN ('storage.advance', 'storage.take_over');
CREATE INDEX audit_storage_exports ON audit ((detail::jsonb ->> 'storage'), (-seq))
  WHERE action = 'key.export' AND strpos(detail, '"storage":') > 0;
-- Whether a token is live is asked with each request. Members of "detail" are found by their text: in JSON no string can pass for one.
CREATE INDEX audit_tokens ON audit (substring(detail from '"token":"([^"]*)"'))
  WHERE action IN ('token.issue', 'token.renew');
CREATE INDEX audit_token_families ON audit (substring(detail from '"family":"([^"]*)"'), (-seq))
  WHERE action IN ('token.issue', 'token.renew');
CREATE INDEX audit_token_issuers ON audit (substring(detail from '"issuer":"([^"]*)"'), (-seq))
  WHERE action IN ('token.issue', 'token.renew');
CREATE INDEX audit_revocations ON audit (substring(detail from '"family":"([^"]*)"')) WHERE action = 'token.revoke';
CREATE INDEX audit_revocations_by_end ON audit (substring(detail from '"expires_at":"([^"]*)"'), seq)
  WHERE action = 'token.revoke';
CREATE INDEX audit_of_no_key ON audit (action, hashtextextended(detail, 0)) WHERE key IS NULL AND detail IS NOT NULL;

-- Times in milliseconds of this server's clock.
CREATE TABLE claims (task text PRIMARY KEY, holder text NOT NULL, until_ms bigint NOT NULL);
CREATE TABLE presences (service text PRIMARY KEY, kek_ids text NOT NULL, until_ms bigint NOT NULL);

-- How often bytes were taken out of "key_versions", up to which of those times a VACUUM has followed, and the latest such transaction.
CREATE TABLE scrubs (
  id smallint PRIMARY KEY CHECK (id = 1), wanted bigint NOT NULL, done bigint NOT NULL, xid xid8
);
INSERT INTO scrubs VALUES (1, 0, 0, NULL);

CREATE TABLE probe (id smallint PRIMARY KEY CHECK (id = 1), count bigint NOT NULL);
INSERT INTO probe VALUES (1, 0);
