import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { KeyVerification } from '../src/audit/verify-keys.ts';
import { retireKek, rotateKek } from '../src/kek/kek-rotation.ts';
import { createKey } from '../src/keys/create-key.ts';
import { openDek } from '../src/keys/open-dek.ts';
import { rotateKey } from '../src/keys/rotate-key.ts';
import { readStoredKey } from '../src/keys/stored-key.ts';
import { CLI_CALLER, SYSTEM } from '../src/records/caller.ts';
import { verifyChain } from '../src/records/chain.ts';
import type { KmsStore } from '../src/store/port.ts';
import { type BareKms, kekIdOfText, openBare, openUnsealed } from './support/keks.ts';
import { newKek } from './support/kms.ts';

const NAMES = ['a-dek', 'b-dek', 'c-dek', 'd-dek', 'e-dek'];
const [OLD, NEW] = [newKek(), newKek()];
const BOTH = `${OLD}\n${NEW}`;
/** The methods of the store that commit during a rotation. */
const COMMITS: ReadonlySet<string> = new Set([
  'addKek',
  'updateKeys',
  'replaceSecrets',
  'appendAudit',
  'claim',
  'release',
]);

/** Kills a process at one of its commits: before it, or after it but before the answer. */
class Death {
  readonly #at: number;
  readonly #when: 'before' | 'after';
  #commits = 0;
  #isDead = false;

  constructor(at: number, when: 'before' | 'after') {
    this.#at = at;
    this.#when = when;
  }

  get isDead(): boolean {
    return this.#isDead;
  }

  readonly decorate = (store: KmsStore): KmsStore =>
    new Proxy(store, {
      get: (target, name: keyof KmsStore) => {
        const real = target[name] as ((...args: unknown[]) => unknown) | undefined;
        if (real === undefined) return undefined;
        return async (...args: unknown[]) => {
          if (this.#isDead) throw dead();
          const isLast = COMMITS.has(String(name)) && ++this.#commits === this.#at;
          if (isLast) this.#isDead = true;
          if (isLast && this.#when === 'before') throw dead();
          const result = await real(...args);
          if (this.#isDead) throw dead();
          return result;
        };
      },
    });
}

const dead = () => new AppError('storage_unavailable', { cause: new Error('the process is dead') });

/** Every version of every DEK in a store. Expects that nothing is damaged. */
async function allDeks({ deps }: BareKms): Promise<string[]> {
  const deks: string[] = [];
  for (const name of NAMES) {
    const { record, versions } = await readStoredKey(deps, name, 'all');
    expect(versions).toHaveLength(record.version);
    for (const version of versions)
      deks.push(`${name} ${version.version} ${(await openDek(deps, record, version)).toString('hex')}`);
  }
  const { items } = await deps.store.listAudit({ limit: 10_000 });
  expect(await verifyChain(deps.chainKey, items)).toMatchObject({ intact: true });
  const verification = new KeyVerification();
  for (const record of items) verification.note(record);
  expect(await verification.damagedKeys(deps.store, deps.chainKey)).toEqual([]);
  return deks;
}

/** A complete rotation: stage, rotate, rewrap, retire. Continues an interrupted one. */
async function rotateAll({ deps, rewrap }: BareKms): Promise<void> {
  await deps.keks.reload();
  if ((await deps.keks.refresh()).current !== kekIdOfText(NEW)) await rotateKek(deps, {}, CLI_CALLER);
  if ((await rewrap.run()) === 'stopped') throw dead();
  const retirement = { kek_id: kekIdOfText(OLD), accept_unfetched: false, accept_damaged: false };
  const { keks } = await deps.keks.refresh();
  if (keks.get(kekIdOfText(OLD))?.standing !== 'retired') await retireKek(deps, retirement, CLI_CALLER);
}

describe('a process that dies during a rotation of the KEK', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bunkms-kek-crash-'));
  const origin = join(folder, 'origin');
  let deks: string[];
  beforeAll(async () => {
    await using kms = await openUnsealed({ dataDir: origin, ring: OLD });
    for (const name of NAMES)
      await createKey(kms.deps, { name, type: 'aes-256', exportable: true, rotate_after_days: null }, SYSTEM);
    for (const name of ['b-dek', 'd-dek']) await rotateKey(kms.deps, { name }, SYSTEM);
    deks = await allDeks(kms);
    expect(deks).toHaveLength(7);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it.each(['before', 'after'] as const)(
    '%s any of its commits leaves every key readable, and the next process completes the rotation',
    async (when) => {
      let deaths = 0;
      let wasRetired = 0;
      for (let at = 1; ; at++) {
        const dataDir = join(folder, `${when}-${at}`);
        cpSync(origin, dataDir, { recursive: true });
        const death = new Death(at, when);
        {
          await using kms = await openUnsealed({ dataDir, ring: BOTH, decorate: death.decorate, batch: 2 });
          await rotateAll(kms).catch((error: unknown) => {
            if (!death.isDead) throw error;
          });
        }
        {
          // A process that starts now has both KEKs.
          await using kms = await openUnsealed({ dataDir, ring: BOTH });
          expect(await allDeks(kms)).toEqual(deks);
          const { keks } = await kms.deps.keks.refresh();
          if (keks.get(kekIdOfText(OLD))?.standing === 'retired') {
            wasRetired++;
            await using alone = await openUnsealed({ dataDir, ring: NEW });
            expect(await allDeks(alone)).toEqual(deks);
          }
          // The claim of the dead process has not expired yet; another holder waits for that.
          (kms.deps.clock as unknown as { advance(ms: number): void }).advance(15_000);
          await rotateAll(kms);
          expect(await allDeks(kms)).toEqual(deks);
        }
        await using alone = await openUnsealed({ dataDir, ring: NEW });
        expect(await allDeks(alone)).toEqual(deks);
        expect(await openBare({ dataDir, ring: OLD })).toMatchObject({ kind: 'sealed' });
        if (!death.isDead) break;
        deaths++;
      }
      // Stage, rotate, claim, five keys in batches of two versions, secrets, end, release, retire.
      expect(deaths).toBeGreaterThanOrEqual(10);
      expect(wasRetired).toBe(when === 'after' ? 2 : 1);
    },
  );
});
