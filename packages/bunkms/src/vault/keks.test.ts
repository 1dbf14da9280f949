import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SYSTEM } from '../records/caller.ts';
import type { AuditDraft } from '../records/chain.ts';
import type { KmsStore } from '../store/port.ts';
import { openSqliteStore } from '../store/sqlite/sqlite-store.ts';
import { type KekProvider, parseKekRing } from './kek-provider.ts';
import { Keks } from './keks.ts';
import { RingSealed } from './open-ring.ts';
import { unseal } from './unseal.ts';
import { Vault } from './vault.ts';

const newKek = () => randomBytes(32).toString('hex');
const idOf = (kek: string) => new Vault(parseKekRing('test', kek)).currentKekId;

/** A ring that the test writes. */
class TestRing implements KekProvider {
  #text: string;
  #writes = 0;
  loads = 0;

  constructor(text: string) {
    this.#text = text;
  }
  write(text: string): void {
    this.#text = text;
    this.#writes++;
  }
  stamp(): string {
    return String(this.#writes);
  }
  isSealed = false;
  async load() {
    this.loads++;
    if (this.isSealed) throw new RingSealed([{ name: 'hsm', state: 'unavailable', cause: 'it is away' }]);
    return parseKekRing('test', this.#text);
  }
  async askSlots() {
    return [];
  }
}

describe('the KEKs of a process', () => {
  const clock = new FakeClock();
  const [one, two, three] = [newKek(), newKek(), newKek()];
  let folder: string;
  let store: KmsStore;
  let ring: TestRing;
  let vault: Vault;
  let keks: Keks;
  let log: string[];

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'bunkms-keks-'));
    store = await openSqliteStore({ dataDir: folder, onCrash: () => undefined, deadlineMs: PATIENT_MS });
    ring = new TestRing(one);
    const stamp = ring.stamp();
    vault = new Vault(await ring.load());
    const state = await unseal(vault, store, clock, 'system');
    if (state.kind === 'sealed') throw new Error(state.reason);
    log = [];
    const destination = new Writable({
      write: (chunk, _encoding, done) => {
        log.push(String(chunk));
        done();
      },
    });
    const logger = createLogger({ service: 'bunkms', level: 'info', destination });
    const { chainKey } = state;
    keks = new Keks({
      vault,
      store,
      chainKey,
      clock,
      logger,
      provider: ring,
      stamp,
      state: state.keks,
      caller: SYSTEM,
    });
  });
  afterEach(async () => {
    await store.close();
    rmSync(folder, { recursive: true });
  });

  const append = (action: string, detail: NonNullable<AuditDraft['detail']>) => {
    const time = new Date(clock.now()).toISOString();
    return store.appendAudit([{ time, severity: 'INFO', action, outcome: 'allowed', detail }]);
  };
  const standings = () => [...keks.state.keks].map(([id, { standing }]) => [id, standing]);

  it('adopt a changed ring, and stage its new KEKs once, with a record', async () => {
    await keks.reload();
    expect([ring.loads, standings()]).toEqual([1, [[idOf(one), 'current']]]);
    ring.write(`${two}\n${one}`);
    for (let time = 0; time < 2; time++) await keks.reload();
    expect(ring.loads).toBe(2);
    expect(standings()).toEqual([
      [idOf(one), 'current'],
      [idOf(two), 'staged'],
    ]);
    expect(vault.currentKekId).toBe(idOf(one));
    expect((await store.kekRecords()).map(({ action }) => action)).toEqual([
      'vault.initialised',
      'kek.stage',
    ]);
  });

  it('keep the last good ring when the new one is invalid or lacks a needed KEK, and log that once', async () => {
    ring.write(`${one}\n${two}`);
    await keks.reload();
    await append('kek.rotate', { kek_id: idOf(two), from: idOf(one) });
    await keks.refresh();
    for (const text of ['nonsense', '', two, one, three]) {
      ring.write(text);
      log.length = 0;
      for (let time = 0; time < 3; time++) await keks.reload();
      expect(vault.kekIds).toEqual([idOf(one), idOf(two)]);
      expect(log).toHaveLength(1);
      expect(log[0]).not.toContain(two);
    }
    ring.write(`${three}\n${two}\n${one}`);
    await keks.reload();
    expect(vault.kekIds).toEqual([three, two, one].map(idOf));
  });

  it('keep the last good ring while no slot opens the new one, and adopt it once one does', async () => {
    ring.isSealed = true;
    ring.write(`${one}\n${two}`);
    for (let time = 0; time < 3; time++) await keks.reload();
    expect(vault.kekIds).toEqual([idOf(one)]);
    expect(log).toHaveLength(1);
    expect(log[0]).toMatch(
      /hsm is unavailable \(it is away\).*no slot opens the new KEK ring: keeping the last/,
    );
    // The file is the same: a provider is back, or an entry was added.
    ring.isSealed = false;
    await keks.reload();
    expect(vault.kekIds).toEqual([idOf(one), idOf(two)]);
    expect(standings()).toContainEqual([idOf(two), 'staged']);
    const { loads } = ring;
    await keks.reload();
    expect(ring.loads).toBe(loads);
  });

  it('follow a rotation by another process, even if the ring must be reloaded first', async () => {
    ring.write(`${one}\n${two}`);
    await keks.reload();
    await append('kek.rotate', { kek_id: idOf(two), from: idOf(one) });
    expect(await keks.refresh()).toMatchObject({ current: idOf(two) });
    expect(vault.currentKekId).toBe(idOf(two));
    // Another process has staged and rotated; this one has not reloaded the ring since.
    ring.write(`${one}\n${two}\n${three}`);
    await append('kek.stage', { kek_id: idOf(three) });
    await append('kek.rotate', { kek_id: idOf(three), from: idOf(two) });
    await keks.refresh();
    expect(vault.currentKekId).toBe(idOf(three));
  });

  it('stop wrapping while the ring lacks the current one, and resume when it has it', async () => {
    await append('kek.stage', { kek_id: idOf(two) });
    await append('kek.rotate', { kek_id: idOf(two), from: idOf(one) });
    await expect(keks.refresh()).rejects.toMatchObject({ code: 'sealed' });
    expect(vault.currentKekId).toBe(idOf(one));
    ring.write(`${one}\n${two}`);
    await keks.refresh();
    expect(vault.currentKekId).toBe(idOf(two));
  });

  it('allow a KEK to leave the ring that another process has just retired', async () => {
    ring.write(`${one}\n${two}`);
    await keks.reload();
    await append('kek.rotate', { kek_id: idOf(two), from: idOf(one) });
    await append('kek.retire', { kek_id: idOf(one) });
    ring.write(two);
    log.length = 0;
    await keks.reload();
    expect(vault.kekIds).toEqual([idOf(two)]);
    expect(log.join()).not.toContain('lacks');
  });

  it('allow a retired one to leave the ring', async () => {
    ring.write(`${one}\n${two}`);
    await keks.reload();
    await append('kek.rotate', { kek_id: idOf(two), from: idOf(one) });
    await append('kek.retire', { kek_id: idOf(one) });
    await keks.refresh();
    ring.write(two);
    await keks.reload();
    expect(vault.kekIds).toEqual([idOf(two)]);
    // And adding it again does not reactivate it.
    ring.write(`${one}\n${two}`);
    await keks.reload();
    expect(standings()).toEqual([
      [idOf(one), 'retired'],
      [idOf(two), 'current'],
    ]);
  });
});
