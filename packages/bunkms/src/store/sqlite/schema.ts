import type { DatabaseSync } from 'node:sqlite';

/**
 * Each entry brings the schema from the version that is its index to the next. Entries are never changed once
 * released, only added to.
 */
const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE installation (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    created_at TEXT NOT NULL,
    chain_key_wrapped BLOB NOT NULL,
    signing_seed_wrapped BLOB NOT NULL,
    signing_key TEXT NOT NULL
  ) STRICT;

  CREATE TABLE keks (
    id TEXT PRIMARY KEY,
    check_value TEXT NOT NULL,
    added_at TEXT NOT NULL
  ) STRICT;

  CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    kcv TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    created_at TEXT NOT NULL
  ) STRICT;

  CREATE TABLE tokens (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    jti TEXT NOT NULL UNIQUE,
    family TEXT NOT NULL,
    sub TEXT NOT NULL,
    typ TEXT NOT NULL,
    aud TEXT NOT NULL,
    scope TEXT NOT NULL,
    keys TEXT NOT NULL,
    projects TEXT NOT NULL,
    issued_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    revoked_at TEXT
  ) STRICT;
  CREATE INDEX tokens_by_family ON tokens (family);

  CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    severity TEXT NOT NULL,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    actor TEXT,
    jti TEXT,
    key TEXT,
    version INTEGER,
    source TEXT,
    request_id TEXT,
    code TEXT,
    detail TEXT,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL
  ) STRICT;
  CREATE INDEX audit_by_key ON audit (key, seq);
  CREATE INDEX audit_by_actor ON audit (actor, seq);
  CREATE INDEX audit_by_time ON audit (time);

  CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL) STRICT;
  INSERT INTO probe VALUES (1, 0);
  `,
  // What belongs to a version leaves the key; "keys.version" says which one is current.
  `
  CREATE TABLE key_versions (
    key_id TEXT NOT NULL REFERENCES keys (id),
    version INTEGER NOT NULL,
    kcv TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (key_id, version)
  ) STRICT;
  INSERT INTO key_versions (key_id, version, kcv, wrapped, created_at)
    SELECT id, version, kcv, wrapped, created_at FROM keys;
  ALTER TABLE keys DROP COLUMN kcv;
  ALTER TABLE keys DROP COLUMN wrapped;
  `,
  // What is pushed to services is found without a walk over the exports, which are nearly all of the chain.
  `
  CREATE INDEX audit_but_exports ON audit (seq) WHERE action <> 'key.export';
  CREATE INDEX tokens_revoked ON tokens (number) WHERE revoked_at IS NOT NULL;
  CREATE INDEX tokens_by_expiry ON tokens (expires_at);
  `,
  // Revision 0 stands for a key that the audit chain has no record of yet ("adoptKeys" of the port).
  `
  ALTER TABLE keys ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE keys ADD COLUMN exportable INTEGER NOT NULL DEFAULT 1;
  ALTER TABLE keys ADD COLUMN rotate_after_days INTEGER;
  ALTER TABLE keys ADD COLUMN due_at TEXT;
  ALTER TABLE keys ADD COLUMN destroyed_at TEXT;
  ALTER TABLE keys ADD COLUMN kek_ids TEXT NOT NULL DEFAULT '';
  ALTER TABLE keys ADD COLUMN idempotency_key TEXT;
  ALTER TABLE keys ADD COLUMN idempotency_request TEXT;
  ALTER TABLE keys ADD COLUMN version_digests BLOB NOT NULL DEFAULT x'';
  ALTER TABLE key_versions ADD COLUMN state TEXT NOT NULL DEFAULT 'available';
  ALTER TABLE key_versions ADD COLUMN destroyed_at TEXT;
  CREATE INDEX keys_by_due ON keys (due_at) WHERE due_at IS NOT NULL;
  CREATE INDEX keys_by_idempotency ON keys (idempotency_key, created_at) WHERE idempotency_key IS NOT NULL;
  CREATE INDEX audit_key_changes ON audit (key, seq) WHERE instr(detail, '"revision":') > 0;
  `,
  // What is wrapped with which KEK is found by the wrapped bytes themselves, and the records that say which is the current one without a walk.
  `
  DROP INDEX audit_but_exports;
  CREATE INDEX audit_but_bulk ON audit (seq)
    WHERE action NOT IN ('key.export', 'key.encrypt', 'key.decrypt', 'key.rewrap', 'kek.rewrap');
  CREATE INDEX audit_keks ON audit (seq)
    WHERE action IN ('vault.initialised', 'kek.added', 'kek.stage', 'kek.rotate', 'kek.rewrapped', 'kek.retire');
  CREATE INDEX key_versions_by_kek ON key_versions (substr(wrapped, 2, 8), key_id) WHERE length(wrapped) > 0;
  CREATE TABLE claims (task TEXT PRIMARY KEY, holder TEXT NOT NULL, until TEXT NOT NULL) STRICT;
  CREATE TABLE presences (service TEXT PRIMARY KEY, kek_ids TEXT NOT NULL, until TEXT NOT NULL) STRICT;
  `,
  // Whether a token is live is asked of the audit chain, with each request. A detail that somebody changed to no JSON must not
  // stand in the way of the walk that finds it.
  `
  ALTER TABLE tokens ADD COLUMN issuer TEXT;
  ALTER TABLE tokens ADD COLUMN may_issue TEXT;
  DROP INDEX tokens_revoked;
  CREATE INDEX audit_tokens ON audit ((CASE WHEN json_valid(detail) THEN json_extract(detail, '$.token') END))
    WHERE action IN ('token.issue', 'token.renew', 'token.restore');
  CREATE INDEX audit_token_families ON audit ((CASE WHEN json_valid(detail) THEN json_extract(detail, '$.family') END))
    WHERE action IN ('token.issue', 'token.renew', 'token.restore');
  CREATE INDEX audit_token_issuers ON audit ((CASE WHEN json_valid(detail) THEN json_extract(detail, '$.issuer') END))
    WHERE action IN ('token.issue', 'token.renew', 'token.restore');
  CREATE INDEX audit_revocations ON audit ((CASE WHEN json_valid(detail) THEN json_extract(detail, '$.family') END)) WHERE action = 'token.revoke';
  CREATE INDEX audit_revocations_by_end ON audit ((CASE WHEN json_valid(detail) THEN json_extract(detail, '$.expires_at') END), seq)
    WHERE action = 'token.revoke';
  `,
];

/**
 * Brings the schema up to date; several processes may try at once. Call inside a write transaction.
 *
 * @throws Error when a newer release has written to this database.
 */
export function migrate(database: DatabaseSync): void {
  const row = database.prepare('PRAGMA user_version').get();
  const version = Number(row?.['user_version']);
  if (version > MIGRATIONS.length)
    throw new Error(`the database has schema ${version}, this release knows ${MIGRATIONS.length}`);
  for (const migration of MIGRATIONS.slice(version)) database.exec(migration);
  database.exec(`PRAGMA user_version = ${MIGRATIONS.length}`);
}
