import type { DatabaseSync } from 'node:sqlite';
import { requireSchema, SCHEMA_VERSION } from '../schema-version.ts';

/** Every database has these statements word for word, so that differences are noticed. */
const SCHEMA = `
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
    revision INTEGER NOT NULL,
    exportable INTEGER NOT NULL,
    rotate_after_days INTEGER,
    due_at TEXT,
    created_at TEXT NOT NULL,
    destroyed_at TEXT,
    kek_ids TEXT NOT NULL,
    idempotency_key TEXT,
    idempotency_request TEXT,
    version_digests BLOB NOT NULL,
    holder TEXT,
    offered_to TEXT,
    move TEXT,
    offer_generation TEXT,
    intended_at TEXT,
    outside TEXT
  ) STRICT;
  CREATE INDEX keys_by_due ON keys (due_at) WHERE due_at IS NOT NULL;
  CREATE INDEX keys_by_idempotency ON keys (idempotency_key, created_at) WHERE idempotency_key IS NOT NULL;
  CREATE INDEX keys_by_deletion ON keys (holder, name) WHERE intended_at IS NOT NULL AND holder IS NOT NULL;

  CREATE TABLE key_versions (
    key_id TEXT NOT NULL REFERENCES keys (id),
    version INTEGER NOT NULL,
    kcv TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at TEXT NOT NULL,
    destroyed_at TEXT,
    wrapped BLOB NOT NULL,
    PRIMARY KEY (key_id, version)
  ) STRICT;
  -- What is wrapped with which KEK is found by the wrapped bytes themselves.
  CREATE INDEX key_versions_by_kek ON key_versions (substr(wrapped, 2, 8), key_id) WHERE length(wrapped) > 0;

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
    revoked_at TEXT,
    issuer TEXT,
    may_issue TEXT
  ) STRICT;
  CREATE INDEX tokens_by_family ON tokens (family, expires_at);
  CREATE INDEX tokens_by_expiry ON tokens (expires_at);

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
  CREATE INDEX audit_but_bulk ON audit (seq)
    WHERE action NOT IN ('key.export', 'key.encrypt', 'key.decrypt', 'key.rewrap', 'kek.rewrap', 'key.read', 'key.list', 'key.leases');
  CREATE INDEX audit_restores ON audit (seq) WHERE action = 'chain.restored';
  CREATE INDEX audit_keks ON audit (seq)
    WHERE action IN ('vault.initialised', 'kek.stage', 'kek.rotate', 'kek.rewrapped', 'kek.retire');
  CREATE INDEX audit_key_changes ON audit (key, seq) WHERE instr(detail, '"revision":') > 0;
  CREATE INDEX audit_storages ON audit (detail ->> '$.storage', seq)
    WHERE action IN ('storage.advance', 'storage.take_over');
  CREATE INDEX audit_storage_exports ON audit (detail ->> '$.storage', seq)
    WHERE action = 'key.export' AND instr(detail, '"storage":') > 0;
  -- A detail that somebody changed to no JSON must not stand in the way of the walk that finds it.
  CREATE INDEX audit_tokens ON audit ((CASE WHEN json_valid(detail) THEN json_extract(detail, '$.token') END))
    WHERE action IN ('token.issue', 'token.renew');
  CREATE INDEX audit_token_families ON audit ((CASE WHEN json_valid(detail) THEN json_extract(detail, '$.family') END))
    WHERE action IN ('token.issue', 'token.renew');
  CREATE INDEX audit_token_issuers ON audit ((CASE WHEN json_valid(detail) THEN json_extract(detail, '$.issuer') END))
    WHERE action IN ('token.issue', 'token.renew');
  CREATE INDEX audit_revocations ON audit ((CASE WHEN json_valid(detail) THEN json_extract(detail, '$.family') END))
    WHERE action = 'token.revoke';
  CREATE INDEX audit_revocations_by_end ON audit ((CASE WHEN json_valid(detail) THEN json_extract(detail, '$.expires_at') END), seq)
    WHERE action = 'token.revoke';

  CREATE TABLE claims (task TEXT PRIMARY KEY, holder TEXT NOT NULL, until TEXT NOT NULL) STRICT;
  CREATE TABLE presences (service TEXT PRIMARY KEY, kek_ids TEXT NOT NULL, until TEXT NOT NULL) STRICT;

  CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL) STRICT;
  INSERT INTO probe VALUES (1, 0);
`;

/**
 * Creates the schema in an empty database. Several processes may try at once. Call it inside a write
 * transaction.
 *
 * @throws Error when the database has another schema.
 */
export function createSchema(database: DatabaseSync): void {
  const version = Number(database.prepare('PRAGMA user_version').get()?.['user_version']);
  if (version !== 0) {
    requireSchema(version);
    return;
  }
  database.exec(SCHEMA);
  database.exec(`PRAGMA user_version = ${SCHEMA_VERSION}`);
}
