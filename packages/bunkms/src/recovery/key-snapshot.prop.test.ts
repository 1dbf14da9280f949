import { createSecretKey, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AuditLog } from '../audit/log.ts';
import { createKey } from '../keys/create-key.ts';
import { destroyKey, destroyVersion } from '../keys/destroy-key.ts';
import { disableKey, enableKey, restoreKey, scheduleDeletion, updateKey } from '../keys/key-lifecycle.ts';
import { rotateKey } from '../keys/rotate-key.ts';
import { type KeyDeps, readStoredKey } from '../keys/stored-key.ts';
import { createMetrics } from '../metrics.ts';
import { NO_OUTSIDE_KEYS } from '../outside/port.ts';
import { CLI_CALLER } from '../records/caller.ts';
import type { KmsStore } from '../store/port.ts';
import { openSqliteStore } from '../store/sqlite/sqlite-store.ts';
import { unseal } from '../vault/unseal.ts';
import { Vault } from '../vault/vault.ts';
import { ChainHistory } from './chain-history.ts';
import { afterChange, snapshotOf } from './key-snapshot.ts';
import { knownKey, restoredKey } from './restored-key.ts';

const clock = new FakeClock();
const folder = mkdtempSync(join(tmpdir(), 'bunkms-snapshot-'));
let deps: KeyDeps;
let store: KmsStore;
beforeAll(async () => {
  store = await openSqliteStore({ dataDir: folder, onCrash: () => undefined, deadlineMs: PATIENT_MS });
  const vault = new Vault([createSecretKey(randomBytes(32))]);
  const state = await unseal(vault, store, clock, 'cli');
  if (state.kind === 'sealed') throw new Error(state.reason);
  const logger = createLogger({ service: 'bunkms', level: 'silent' });
  const audit = new AuditLog({ store, logger, metrics: createMetrics() });
  const keks = { refresh: async () => state.keks };
  const outside = NO_OUTSIDE_KEYS;
  deps = { store, vault, keks, chainKey: state.chainKey, audit, clock, logger, outside };
});
afterAll(async () => {
  await store.close();
  rmSync(folder, { recursive: true });
});

const CHANGES = {
  rotate: (name: string) => rotateKey(deps, { name }, CLI_CALLER),
  enable: (name: string) => enableKey(deps, { name }, CLI_CALLER),
  disable: (name: string) => disableKey(deps, { name }, CLI_CALLER),
  schedule: (name: string) => scheduleDeletion(deps, { name, pendingDays: 9 }, CLI_CALLER),
  restore: (name: string) => restoreKey(deps, { name }, CLI_CALLER),
  update: (name: string) => updateKey(deps, { name, update: { rotate_after_days: 30 } }, CLI_CALLER),
  never: (name: string) => updateKey(deps, { name, update: { rotate_after_days: null } }, CLI_CALLER),
  keep: (name: string) => updateKey(deps, { name, update: { exportable: false } }, CLI_CALLER),
  destroyFirst: (name: string) => destroyVersion(deps, { name, version: 1 }, CLI_CALLER),
  destroySecond: (name: string) => destroyVersion(deps, { name, version: 2 }, CLI_CALLER),
  destroy: (name: string) => destroyKey(deps, { name }, CLI_CALLER),
} satisfies Record<string, (name: string) => Promise<unknown>>;

const changes = fc.array(fc.constantFrom(...(Object.keys(CHANGES) as (keyof typeof CHANGES)[])), {
  maxLength: 12,
});
const policies = fc.record({
  exportable: fc.boolean(),
  rotate_after_days: fc.option(fc.integer({ min: 1, max: 90 })),
});

let made = 0;
/** A key after changes, of which those that its state forbids were refused. */
async function lead(
  policy: { exportable: boolean; rotate_after_days: number | null },
  through: readonly (keyof typeof CHANGES)[],
) {
  const name = `k${++made}`;
  await createKey(deps, { name, type: 'aes-256', ...policy }, CLI_CALLER);
  for (const change of through) {
    clock.advance(1_000);
    await CHANGES[change](name).catch(() => undefined);
  }
  return name;
}

async function changesOf(name: string) {
  return (await deps.store.listAudit({ key: name, uses: false, limit: 1_000 })).items;
}

describe('the state of a key', () => {
  it('follows from the audit chain alone, after any changes', async () => {
    await fc.assert(
      fc.asyncProperty(policies, changes, async (policy, through) => {
        const name = await lead(policy, through);
        const key = await readStoredKey(deps, name, 'all');
        const history = new ChainHistory();
        for (const record of await changesOf(name)) history.note(record);
        const derived = history.of(name);
        // The chain has the KEKs only in the last record.
        const kekIds = key.record.state === 'destroyed' ? key.record.kekIds : [];
        expect(derived?.snapshot).toEqual({ ...snapshotOf(key.record, key.versions), kekIds });
        for (const { version, kcv } of key.versions) expect(derived?.kcvs.get(version)).toBe(kcv);
      }),
      { numRuns: 60 },
    );
  });

  it('follows from an earlier snapshot and the changes since', async () => {
    await fc.assert(
      fc.asyncProperty(policies, changes, changes, async (policy, earlier, since) => {
        const name = await lead(policy, earlier);
        const before = await readStoredKey(deps, name, 'all');
        const seen = (await changesOf(name)).length;
        for (const change of since) await CHANGES[change](name).catch(() => undefined);
        const after = await readStoredKey(deps, name, 'all');
        const snapshot = (await changesOf(name))
          .slice(seen)
          .reduce(afterChange, snapshotOf(before.record, before.versions));
        expect(snapshot).toEqual(snapshotOf(after.record, after.versions));
      }),
      { numRuns: 40 },
    );
  });

  it('is complete in the record of a recovery', async () => {
    const recovery = { caller: CLI_CALLER, time: '2027-01-01T00:00:00.000Z', source: 'backup' } as const;
    const place = { seq: 1, prev_hash: '', hash: '' };
    await fc.assert(
      fc.asyncProperty(policies, changes, fc.boolean(), async (policy, through, isCovered) => {
        const { record, versions } = await readStoredKey(deps, await lead(policy, through), 'all');
        const lost = knownKey(snapshotOf(record, versions), [], true, recovery);
        expect(afterChange(undefined, { ...lost.audit, ...place })).toEqual(
          snapshotOf(lost.record, lost.versions),
        );
        const archived = { kind: 'key', key: record, versions } as const;
        const change = restoredKey(archived, undefined, isCovered, recovery);
        if (isCovered || record.state === 'destroyed') expect(change).toBeUndefined();
        else
          expect(change && afterChange(undefined, { ...change.audit, ...place })).toEqual({
            ...snapshotOf(record, versions),
            state: 'disabled',
            deletionAt: null,
            holder: 'unknown',
            offer: null,
            intendedAt: null,
            outside: null,
            revision: record.revision + 1,
          });
      }),
      { numRuns: 40 },
    );
  });
});
