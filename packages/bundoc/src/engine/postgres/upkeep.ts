import { OpenError } from '@bundoc/shared/crypto/aead';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ProjectCipher } from '../../crypto/project-cipher.ts';
import {
  IDEMPOTENCY_KEYS_MAX,
  IDEMPOTENCY_TTL_MS,
  type Resealed,
  TOMBSTONE_TTL_MS,
  TOMBSTONES_MAX,
} from '../port/port.ts';
import type { DocumentState } from '../port/state.ts';
import { ResealPasses } from '../reseal-passes.ts';
import type { Database, Row, Statement, Transaction } from './database/database.ts';
import { lockOf } from './rows/project-rows.ts';
import type { RowCipher } from './rows/row-cipher.ts';
import { KEYS, orUndefined, ROW_COLUMNS, readStateRow, SEALED } from './rows/rows.ts';
import { SEALED_COUNT, type SealCounter } from './rows/seal-counter.ts';

/**
 * Maximum number of rows that one transaction purges, so that it does not hold the project's lock for long.
 */
const PRUNED_AT_ONCE = 1_000;
/** Sealed bytes after which one transaction re-seals no further document. */
const RESEAL_BYTES_MAX = 4_194_304;

/**
 * Tombstones from before a time, and those before the last ones; one millisecond's go together. By place, not
 * by name: a planner may compare each row of the project with each of the names.
 */
const PURGE: Statement = {
  name: 'bundoc-purge-3',
  text: `
WITH gone AS (
  DELETE FROM bundoc.documents WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM bundoc.documents WHERE project = $1 AND deleted_ms > 0 AND deleted_ms < greatest($2, (
      SELECT deleted_ms + 1 FROM bundoc.documents WHERE project = $1 AND deleted_ms > 0
      ORDER BY deleted_ms DESC OFFSET $4 LIMIT 1
    )) ORDER BY deleted_ms LIMIT $3
  )) RETURNING seq
)
UPDATE bundoc.heads SET purged_seq = greatest(purged_seq, (SELECT max(seq) FROM gone))
WHERE project = $1 AND EXISTS (SELECT FROM gone) RETURNING (SELECT count(*) FROM gone)`,
};
const FORGET_KEYS: Statement = {
  name: 'bundoc-forget-keys-2',
  text: `
DELETE FROM bundoc.used_keys WHERE project = $1 AND (at_ms <= $2 OR token IN (
  SELECT token FROM bundoc.used_keys WHERE project = $1 AND at_ms > 0 ORDER BY at_ms DESC OFFSET $3
))`,
};
const FORMER: Statement = {
  name: 'bundoc-former-3',
  text: 'SELECT coalesce(sum(documents), 0)::bigint FROM bundoc.key_versions WHERE project = $1 AND version <> $2',
};
const SEALS: Statement = {
  name: 'bundoc-read-seals-2',
  text: `SELECT ${SEALED_COUNT} FROM bundoc.key_versions WHERE project = $1 AND version = $2`,
};
const SET_SEALS: Statement = {
  name: 'bundoc-set-seals-1',
  text: 'UPDATE bundoc.key_versions SET seals = $3 WHERE project = $1 AND version = $2',
};
const TO_RESEAL: Statement = {
  name: 'bundoc-to-reseal-3',
  text: `
SELECT ${ROW_COLUMNS}, ${SEALED}, ${KEYS} FROM (
  SELECT *, row_number() OVER w AS place, sum(octet_length(sealed)) OVER w AS running FROM (
    SELECT * FROM bundoc.documents WHERE project = $1 AND name > $2 AND deleted_ms = 0 AND key_version < $3
    ORDER BY name LIMIT $4
  ) AS d WINDOW w AS (ORDER BY name)
) AS d WHERE place = 1 OR running <= $5 ORDER BY name`,
};
/**
 * Changes nothing for a document that was written or re-sealed in the meantime: it is already under the
 * current version. Returns the number of documents that it changed.
 */
const RESEAL: Statement = {
  name: 'bundoc-reseal-3',
  text: `
WITH r AS (
  SELECT * FROM unnest($3::bytea[], $4::bigint[], $5::integer[], $6::bytea[], $7::bytea[], $8::bytea[])
    AS r(name, row_seq, former, state, sealed, keys)
), resealed AS (
  UPDATE bundoc.documents AS d SET key_version = $2, state = r.state, sealed = r.sealed, keys = r.keys FROM r
  WHERE d.project = $1 AND d.name = r.name AND d.seq = r.row_seq AND d.key_version = r.former RETURNING r.former
), counts AS (
  SELECT former AS version, -count(*) AS documents FROM resealed GROUP BY former
  UNION ALL SELECT $2, count(*) FROM resealed
), counted AS (
  UPDATE bundoc.key_versions AS v SET documents = v.documents + counts.documents FROM counts
  WHERE v.project = $1 AND v.version = counts.version
)
SELECT count(*) FROM resealed`,
};
const COLLECTIONS_TO_RESEAL: Statement = {
  name: 'bundoc-collections-to-reseal-1',
  text: 'SELECT token, key_version, name FROM bundoc.collections WHERE project = $1 AND key_version < $2',
};
const RESEAL_COLLECTION: Statement = {
  name: 'bundoc-reseal-collection-1',
  text: 'UPDATE bundoc.collections SET key_version = $3, name = $4 WHERE project = $1 AND token = $2 AND key_version < $3',
};
const INDEXES_TO_RESEAL: Statement = {
  name: 'bundoc-indexes-to-reseal-1',
  text: 'SELECT id, key_version, spec FROM bundoc.indexes WHERE project = $1 AND key_version < $2',
};
const RESEAL_INDEX: Statement = {
  name: 'bundoc-reseal-index-1',
  text: 'UPDATE bundoc.indexes SET key_version = $3, spec = $4 WHERE project = $1 AND id = $2 AND key_version < $3',
};

export interface UpkeepOptions {
  readonly project: string;
  readonly database: Database;
  readonly cipher: ProjectCipher;
  readonly clock: Clock;
  /** Called with the opaque name of every document that does not open. */
  readonly onIntegrityError: (name: string) => void;
}

/** The name before all others. */
const FIRST = Buffer.alloc(0);

/**
 * Purges old rows, and re-seals everything sealed under an earlier key version. Any node may do it at any
 * time.
 */
export class Upkeep {
  readonly #options: UpkeepOptions;
  readonly #rows: RowCipher;
  readonly #seals: SealCounter;
  /** Passes in the order of names. The place is the last name that was visited. */
  readonly #passes: ResealPasses<Buffer>;
  #pendingReencryption = 0;

  constructor(options: UpkeepOptions, rows: RowCipher, seals: SealCounter) {
    this.#options = options;
    this.#rows = rows;
    this.#seals = seals;
    this.#passes = new ResealPasses(options.clock, FIRST);
  }

  /** Number of documents under earlier versions, as last counted. */
  get pendingReencryption(): number {
    return this.#pendingReencryption;
  }

  /** @param found the number of documents by key version, if just counted. */
  async begin(found?: ReadonlyMap<number, number>): Promise<void> {
    const { database, project, cipher } = this.#options;
    if (found !== undefined) {
      this.#pendingReencryption = found
        .entries()
        .reduce((sum, [version, documents]) => sum + (version === cipher.version ? 0 : documents), 0);
      return;
    }
    const [row] = await database.query(FORMER, [project, cipher.version]);
    this.#pendingReencryption = Number(row?.[0] ?? 0);
  }

  /** Purges old tombstones and idempotency keys. */
  async prune(): Promise<void> {
    const { project, clock, database } = this.#options;
    const nowMs = clock.now();
    const lock = lockOf(project);
    for (let pruned = PRUNED_AT_ONCE; pruned === PRUNED_AT_ONCE; )
      pruned =
        (await database.transaction(lock, async (transaction) => {
          const values = [project, nowMs - TOMBSTONE_TTL_MS, PRUNED_AT_ONCE, TOMBSTONES_MAX];
          return Number((await transaction.query(PURGE, values))[0]?.[0] ?? 0);
        })) ?? 0;
    await database.transaction(lock, async (transaction) => {
      await transaction.query(FORGET_KEYS, [project, nowMs - IDEMPOTENCY_TTL_MS, IDEMPOTENCY_KEYS_MAX]);
      return true;
    });
  }

  /** Names go first: a project whose documents are all under the current version is not visited again. */
  async reseal(limit: number): Promise<Resealed> {
    const after = this.#passes.from;
    if (after === undefined) return { resealed: 0, skipped: 0, goesOn: false };
    if (after === FIRST) {
      await this.#resealCollections();
      await this.#resealIndexes();
    }
    const { project, database, cipher } = this.#options;
    const values = [project, after, cipher.version, limit, RESEAL_BYTES_MAX];
    const found = await database.query(TO_RESEAL, values);
    const rows = found.map((row) => this.#resealed(row)).filter((row) => row !== undefined);
    const resealed = rows.length === 0 ? 0 : await this.#write(rows);
    const last = found.at(-1)?.[0] as Buffer | undefined;
    const skipped = found.length - rows.length;
    this.#passes.stepped(last, skipped);
    await this.begin();
    const cause = skipped === 0 ? undefined : new OpenError();
    return { resealed, skipped, cause, goesOn: last !== undefined };
  }

  /** @returns how many of the documents were still to be re-sealed. */
  async #write(resealed: readonly ResealedRow[]): Promise<number> {
    const { project, database, cipher } = this.#options;
    this.#seals.made(resealed.length);
    const column = <K extends keyof ResealedRow>(name: K) => resealed.map((one) => one[name]);
    const names = ['name', 'seq', 'former', 'state', 'sealed', 'keys'] as const;
    const rows = names.map(column);
    const done = await database.transaction(lockOf(project), async (transaction, [head]) => {
      if (head?.[0] === undefined) return undefined;
      const [present] = await transaction.query(SEALS, [project, cipher.version]);
      const count = this.#seals.next(present?.[0] as Buffer | null | undefined);
      await transaction.query(SET_SEALS, [project, cipher.version, count.sealed]);
      const [changed] = await transaction.query(RESEAL, [project, cipher.version, ...rows]);
      return { count, changed: Number(changed?.[0] ?? 0) };
    });
    if (done === undefined) return 0;
    this.#seals.committed(done.count);
    return done.changed;
  }

  /** The row's bytes under the current version; undefined for an undecryptable row. */
  #resealed(row: Row): ResealedRow | undefined {
    const { cipher, onIntegrityError } = this.#options;
    try {
      const state = readStateRow(row, this.#rows);
      const name = state.fileName.toString('hex');
      const text = cipher.openDocument(name, row[9] as Buffer, state.keyVersion);
      const keys = this.#resealedKeys(state, row[10] as Buffer | null);
      return {
        name: state.fileName,
        seq: state.seq,
        former: state.keyVersion,
        state: this.#rows.sealState({ ...state, keyVersion: cipher.version }),
        sealed: cipher.sealDocument(name, text),
        keys,
      };
    } catch (error) {
      if (!(error instanceof OpenError)) throw error;
      onIntegrityError((row[0] as Buffer).toString('hex'));
      return undefined;
    }
  }

  /** Keys that do not open are left out: then every search of an index reads the document. */
  #resealedKeys(state: DocumentState, keys: Buffer | null): Buffer | null {
    const opened = keys && orUndefined(() => this.#rows.openKeys(state, state.keyVersion, keys));
    return opened ? this.#rows.sealKeys(state, opened) : null;
  }

  async #resealCollections(): Promise<void> {
    const { project, database, cipher } = this.#options;
    const found = await database.query(COLLECTIONS_TO_RESEAL, [project, cipher.version]);
    if (found.length === 0) return;
    await database.transaction(lockOf(project), (transaction) => this.#resealNames(transaction, found));
  }

  async #resealNames(transaction: Transaction, found: readonly Row[]): Promise<true> {
    const { project, cipher } = this.#options;
    for (const row of found) {
      const [token, version, sealed] = row as unknown as [Buffer, number, Buffer];
      const name = this.#rows.openCollectionName(token, version, sealed);
      const values = [project, token, cipher.version, this.#rows.sealCollectionName(token, name)];
      await transaction.query(RESEAL_COLLECTION, values);
    }
    return true;
  }

  /** An undecryptable one stays unchanged: writers to its collection get the error. */
  async #resealIndexes(): Promise<void> {
    const { project, database, cipher } = this.#options;
    const found = await database.query(INDEXES_TO_RESEAL, [project, cipher.version]);
    const resealed = found.flatMap((row) => {
      const [id, version, sealed] = row as unknown as [number, number, Buffer];
      const text = orUndefined(() => this.#rows.openIndexSpec(id, version, sealed));
      return text === undefined ? [] : [[id, cipher.version, this.#rows.sealIndexSpec(id, text)]];
    });
    if (resealed.length === 0) return;
    await database.transaction(lockOf(project), async (transaction) => {
      for (const values of resealed) await transaction.query(RESEAL_INDEX, [project, ...values]);
      return true;
    });
  }
}

interface ResealedRow {
  readonly name: Buffer;
  readonly seq: number;
  readonly former: number;
  readonly state: Buffer;
  readonly sealed: Buffer;
  readonly keys: Buffer | null;
}
