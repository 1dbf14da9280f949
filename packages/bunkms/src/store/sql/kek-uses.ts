import type { KeyVersionRecord, NamedKey } from '../../records/key-record.ts';
import { kekIdOf } from '../../records/wrapped-key.ts';
import type { KekUse } from '../kek.ts';
import type { NamePage, Page, PageQuery } from '../page.ts';
import type { AuditTable } from './audit-table.ts';
import type { Dialect } from './dialect.ts';
import { readInstallation } from './installation-table.ts';
import { type KeyTable, namedKey } from './key-table.ts';
import { row, rows, type Sql } from './statement.ts';

/** Exactly the expression of the index. */
const KEK_ID = 'substr(wrapped, 2, 8)';
/** Versions after which a page of keys ends; the last key may exceed it. */
const VERSIONS_OF_PAGE_MAX = 1_000;
/** Maximum keys, and audit records, that one page reads: other calls wait. */
const KEYS_LOOKED_AT_MAX = 250;
const RECORDS_LOOKED_AT_MAX = 10_000;

/** Whether all wrapped bytes of a change are wrapped with this KEK. */
export function isWrappedWith(versions: readonly KeyVersionRecord[], kekId: string | undefined): boolean {
  return versions.every(({ wrapped }) => wrapped.length === 0 || kekIdOf(wrapped) === kekId);
}

/** Queries for what is wrapped with which KEK, by the wrapped bytes themselves. */
export class KekUses {
  readonly #audit: AuditTable;
  readonly #keys: KeyTable;
  /** Exactly the condition of the index. */
  readonly #wrapped: string;

  constructor(dialect: Dialect, audit: AuditTable, keys: KeyTable) {
    this.#audit = audit;
    this.#keys = keys;
    this.#wrapped = `key_versions ${dialect.indexedBy('key_versions_by_kek')} WHERE length(wrapped) > 0`;
  }

  /** Consistent only inside a snapshot. */
  *count(): Sql<KekUse[]> {
    const found = yield* rows(
      `SELECT ${KEK_ID} AS kek_id, count(*) AS versions FROM ${this.#wrapped} GROUP BY ${KEK_ID}`,
    );
    const uses = new Map(
      found.map((one) => [
        Buffer.from(one['kek_id'] as Uint8Array).toString('hex'),
        { versions: one['versions'] as number, secrets: 0 },
      ]),
    );
    for (const wrapped of yield* secrets()) {
      const kekId = kekIdOf(wrapped) ?? '';
      const use = uses.get(kekId) ?? { versions: 0, secrets: 0 };
      uses.set(kekId, { ...use, secrets: use.secrets + 1 });
    }
    return [...uses]
      .map(([kekId, use]) => ({ kekId, ...use }))
      .sort((one, other) => (one.kekId < other.kekId ? -1 : 1));
  }

  /** Versions that are wrapped with another KEK. */
  *countOthers(kekId: string): Sql<number> {
    const others = `SELECT count(*) FROM ${this.#wrapped} AND ${KEK_ID}`;
    const found = yield* row(
      `SELECT (${others} < $1) + (${others} > $1) AS count`,
      Buffer.from(kekId, 'hex'),
    );
    return found?.['count'] as number;
  }

  /** Whether a version of a key, or a secret of the service, is wrapped with the KEK. */
  *isUsed(kekId: string): Sql<boolean> {
    const sql = `SELECT 1 FROM ${this.#wrapped} AND ${KEK_ID} = $1 LIMIT 1`;
    if ((yield* row(sql, Buffer.from(kekId, 'hex'))) !== undefined) return true;
    return (yield* secrets()).some((wrapped) => kekIdOf(wrapped) === kekId);
  }

  /** Keys with all their versions, if one is wrapped with the KEK. Consistent only inside a snapshot. */
  *list(kekId: string, page: PageQuery<string>): Sql<Page<NamedKey>> {
    const found = yield* rows(
      `SELECT key_id, (SELECT count(*) FROM key_versions AS v WHERE v.key_id = found.key_id) AS versions
         FROM (SELECT DISTINCT key_id FROM ${this.#wrapped} AND ${KEK_ID} = $1 AND key_id > $2 ORDER BY key_id LIMIT $3) AS found
         ORDER BY key_id`,
      Buffer.from(kekId, 'hex'),
      page.after ?? '',
      page.limit + 1,
    );
    const ids: string[] = [];
    for (
      let versions = 0;
      ids.length < Math.min(page.limit, found.length) && versions < VERSIONS_OF_PAGE_MAX;
    ) {
      const next = found[ids.length];
      ids.push(next?.['key_id'] as string);
      versions += next?.['versions'] as number;
    }
    const records = yield* this.#keys.findById(ids);
    const versions = yield* this.#keys.allVersions(ids);
    // If somebody removed only the key, its versions remain without one.
    const names = ids.map((id) => records.get(id)?.name ?? id);
    const changes = yield* this.#audit.lastChanges(names);
    const items = ids.map((id): NamedKey => {
      const record = records.get(id);
      return record === undefined
        ? { name: id, record, versions: [], lastChange: changes.get(id) }
        : namedKey(record, versions.get(id) ?? [], changes);
    });
    return { items, more: ids.length < found.length };
  }

  /** Keys whose holders may have copies only under this KEK. Consistent only inside a snapshot. */
  *listStaleCopies(kekId: string, page: PageQuery<string>): Sql<NamePage> {
    const names: string[] = [];
    const left = { records: RECORDS_LOOKED_AT_MAX };
    const keys = yield* this.#keys.after(page.after ?? '', KEYS_LOOKED_AT_MAX);
    for (const [index, { id, name, state, kekIds }] of keys.entries()) {
      const concerns = state !== 'destroyed' && kekIds.includes(kekId);
      if (concerns && (yield* this.#hasStaleCopies({ id, name }, left))) names.push(name);
      const isLast = index === KEYS_LOOKED_AT_MAX - 1;
      if (names.length === page.limit || isLast || left.records <= 0) return { names, next: name };
    }
    return { names };
  }

  /** Whether an existing version was released before the key was rewrapped, and not since. */
  *#hasStaleCopies(
    { id, name }: { readonly id: string; readonly name: string },
    left: { records: number },
  ): Sql<boolean> {
    const rewrapped = yield* this.#audit.lastRewrap(name);
    if (rewrapped === undefined) return false;
    const present = yield* rows(
      'SELECT version FROM key_versions WHERE key_id = $1 AND length(wrapped) > 0',
      id,
    );
    const unfetched = new Set(present.map((one) => one['version'] as number));
    const releases = yield* rows(
      `SELECT version, count(*) AS looked, max(seq) FILTER (WHERE action = 'key.export' AND outcome = 'allowed') AS last
         FROM (SELECT * FROM audit WHERE key = $1 ORDER BY seq DESC LIMIT ${RECORDS_LOOKED_AT_MAX}) AS looked_at GROUP BY version`,
      name,
    );
    let looked = 0;
    for (const release of releases) {
      looked += release['looked'] as number;
      const [version, last] = [release['version'] as number | null, release['last'] as number | null];
      if (version === null || last === null || !unfetched.has(version)) continue;
      if (last < rewrapped) return true;
      unfetched.delete(version);
    }
    left.records -= looked;
    // Too many records to decide: the key counts as not fetched.
    return unfetched.size > 0 && looked === RECORDS_LOOKED_AT_MAX;
  }
}

/** The service's own secrets, wrapped. */
function* secrets(): Sql<Uint8Array[]> {
  const installation = yield* readInstallation();
  return installation === undefined ? [] : [installation.chainKeyWrapped, installation.signingSeedWrapped];
}
