import { createSecretKey, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { AuditTable } from '../store/sql/audit-table.ts';
import { KeyTable } from '../store/sql/key-table.ts';
import { runSync, type Sql } from '../store/sql/statement.ts';
import { Connection } from '../store/sqlite/connection.ts';
import { SQLITE } from '../store/sqlite/dialect.ts';
import { GENESIS, nextRecord } from './chain.ts';
import {
  digestOfKey,
  digestOfVersion,
  isGenuineVersion,
  type KeyRecord,
  type KeyVersionRecord,
  keyChangeDraft,
  keyFault,
  withDigests,
} from './key-record.ts';

const time = fc.date({ noInvalidDate: true }).map((date) => date.toISOString());
const hexId = fc
  .uint8Array({ minLength: 8, maxLength: 8 })
  .map((bytes) => Buffer.from(bytes).toString('hex'));
const text = fc.string({ minLength: 1, maxLength: 8 }).map((one) => one.replaceAll('\0', '0'));
const bytes = fc.uint8Array({ maxLength: 80 });

const version: fc.Arbitrary<KeyVersionRecord> = fc.record(
  {
    keyId: fc.constant('id'),
    version: fc.integer({ min: 1, max: 4 }),
    kcv: text,
    state: fc.constantFrom('available', 'destroyed'),
    createdAt: time,
    destroyedAt: fc.option(time),
    wrapped: bytes,
  },
  { noNullPrototype: true },
);

const record: fc.Arbitrary<KeyRecord> = fc.record(
  {
    id: fc.uuid(),
    name: text,
    type: fc.constant('aes-256'),
    state: fc.constantFrom('enabled', 'disabled', 'pending_deletion', 'destroyed'),
    version: fc.integer({ min: 1, max: 1_000 }),
    revision: fc.integer({ min: 1, max: 1_000_000 }),
    exportable: fc.boolean(),
    rotateAfterDays: fc.option(fc.integer({ min: 1, max: 3_650 })),
    dueAt: fc.option(time),
    createdAt: time,
    destroyedAt: fc.option(time),
    kekIds: fc.uniqueArray(hexId, { maxLength: 3 }),
    idempotency: fc.option(fc.record({ key: text, request: text }, { noNullPrototype: true })),
    versionDigests: fc.uint8Array({ minLength: 32, maxLength: 96 }),
    holder: fc.option(fc.uuid()),
    offer: fc.option(
      fc.record({ to: fc.uuid(), move: fc.uuid(), generation: fc.uuid() }, { noNullPrototype: true }),
    ),
    intendedAt: fc.option(time),
    outside: fc.option(
      fc.record(
        { key: text, identity: hexId, leaseTtlS: fc.integer({ min: 60, max: 900 }) },
        { noNullPrototype: true },
      ),
    ),
  },
  { noNullPrototype: true },
);

describe('the digest of a key', () => {
  it('differs for any two different keys, and is the same for equal ones', () => {
    fc.assert(
      fc.property(record, record, (one, other) => {
        expect(digestOfKey({ ...one })).toBe(digestOfKey(one));
        const merged = Object.keys(one).map((name) => ({ ...one, [name]: other[name as keyof KeyRecord] }));
        for (const changed of merged)
          expect(digestOfKey(changed) === digestOfKey(one)).toBe(isDeepStrictEqual(changed, one));
      }),
    );
  });

  it('matches no other version, and each version matches only its own place', () => {
    fc.assert(
      fc.property(
        record,
        fc.uniqueArray(version, { minLength: 2, maxLength: 4, selector: (one) => one.version }),
        (key, versions) => {
          const owner = { ...key, versionDigests: withDigests(new Uint8Array(), versions) };
          for (const one of versions) {
            expect(isGenuineVersion(owner, one)).toBe(true);
            expect(isGenuineVersion(owner, { ...one, version: one.version + 1 })).toBe(false);
            expect(isGenuineVersion(owner, { ...one, keyId: 'other' })).toBe(false);
            const again = { ...one, kcv: `${one.kcv}0` };
            expect(isGenuineVersion(owner, again)).toBe(false);
            const next = { ...owner, versionDigests: withDigests(owner.versionDigests, [again]) };
            expect(isGenuineVersion(next, again)).toBe(true);
            expect(isGenuineVersion(next, one)).toBe(false);
            for (const other of versions)
              if (other !== one) expect(digestOfVersion(other).equals(digestOfVersion(one))).toBe(false);
          }
        },
      ),
    );
  });
});

describe('a key is accepted', () => {
  const chainKey = createSecretKey(randomBytes(32));
  const origin = { caller: { actor: 'x' }, time: '2026-01-01T00:00:00.000Z', action: 'key.update' };

  it('only in the state after its latest change, and only with the right chain key', () => {
    fc.assert(
      fc.property(record, record, (one, other) => {
        const lastChange = nextRecord(chainKey, GENESIS, keyChangeDraft(origin, one));
        const stored = { record: one, versions: [], lastChange };
        expect(keyFault(chainKey, one.name, stored)).toBeUndefined();
        expect(keyFault(createSecretKey(randomBytes(32)), one.name, stored)).toBe(
          'its audit record was changed',
        );
        for (const name of Object.keys(one) as (keyof KeyRecord)[]) {
          const edited = { ...one, [name]: other[name] } as KeyRecord;
          const fault = keyFault(chainKey, one.name, { ...stored, record: edited });
          expect(fault === undefined).toBe(isDeepStrictEqual(edited, one));
        }
        expect(keyFault(chainKey, one.name, { ...stored, record: undefined })).toBe('lost');
        expect(keyFault(chainKey, one.name, { ...stored, lastChange: undefined })).toBe(
          'not in the audit chain',
        );
      }),
    );
  });
});

describe('the table of keys', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bunkms-keys-'));
  const connection = new Connection(join(folder, 'keys.sqlite'), 100);
  const keys = new KeyTable(SQLITE, new AuditTable(SQLITE));
  const run = <T>(work: Sql<T>): T => runSync(work, (statement) => connection.execute(statement));
  const find = (name: string) => run(keys.findWithAllVersions(name));
  afterAll(() => {
    connection.close();
    rmSync(folder, { recursive: true });
  });

  it('returns every key and version as it was stored', () => {
    const audit = { time: '', severity: 'INFO', action: '', outcome: 'allowed' } as const;
    fc.assert(
      fc.property(record, record, version, (key, later, one) => {
        connection.run('DELETE FROM key_versions');
        connection.run('DELETE FROM keys');
        const versions = [{ ...one, keyId: key.id }];
        run(keys.insert({ record: key, versions, audit }));
        expect(find(key.name)).toEqual({ record: key, versions, lastChange: undefined });
        expect(run(keys.findStored([[key.name, one.version]]))).toEqual([find(key.name)]);
        const next = { ...later, id: key.id, revision: key.revision + 1 };
        const update = { record: next, versions: [], audit, previous: key };
        expect(run(keys.update(update))).toBe(true);
        expect(find(next.name).record).toEqual(next);
        expect(run(keys.update(update))).toBe(false);
      }),
    );
  });
});
