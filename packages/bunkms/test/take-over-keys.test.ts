import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { LONG, runs } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type CliDeps, withKeys } from '../src/cli/open-kms.ts';
import { holdingsOf, takeOverKeys } from '../src/keys/take-over-keys.ts';
import { CLI_CALLER } from '../src/records/caller.ts';
import { bunkms } from './support/command.ts';
import { openEvents } from './support/events.ts';
import { FaultyStore } from './support/faulty-store.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import type { PostgresDatabases } from './support/postgres.ts';
import { spawnBunkms } from './support/process.ts';
import { auditCopyOf, backupOf, restoreInto } from './support/recovery.ts';
import { expectSound } from './support/soundness.ts';
import { testStorage } from './support/storage.ts';
import { setKey, TestStorageNode } from './support/storages.ts';
import { usePostgresStorage } from './support/use-postgres-storage.ts';

/** More keys than one page has, and after how many of them a take-over is interrupted. */
const MANY = { keys: 530, interruptedAt: 210 };
/** The code of pages is the same on either store. */
const FEW = { keys: 60, interruptedAt: 25 };

describe('bunkms storage take-over --of, in SQLite', () => givesAllKeys(MANY, async () => ({})));

describe('bunkms storage take-over --of, in PostgreSQL', needs('postgresql'), () => {
  let databases: PostgresDatabases;
  usePostgresStorage((started) => {
    databases = started;
  });
  givesAllKeys(LONG ? MANY : FEW, async (dataDir) => ({ BUNKMS_STORAGE: await databases.url(dataDir) }));
});

function givesAllKeys(
  many: typeof MANY,
  storageOf: (dataDir: string) => Promise<Record<string, string>>,
): void {
  let folder: string;
  let kms: TestKms;
  let keys: KeyCalls;
  /** The storage that is lost. */
  let lost: TestStorageNode;
  /** The storage that gets its keys. */
  let next: TestStorageNode;
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'bunkms-take-over-keys-'));
    kms = await startKms();
    keys = await KeyCalls.of(kms);
    lost = await TestStorageNode.of(kms);
    next = await TestStorageNode.of(kms);
  });
  afterEach(async () => {
    await kms[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  const environment = async () => ({
    BUNKMS_DATA_DIR: kms.dataDir,
    BUNKMS_KEK: kms.kek,
    ...(await storageOf(kms.dataDir)),
  });
  const run = async (...args: string[]) => bunkms(await environment(), ...args);
  const takeOver = (...options: string[]) =>
    run('storage', 'take-over', next.id, '--of', lost.id, ...options);
  const holderOf = async (name: string) => (await kms.store.findKey(name, 'current'))?.record?.holder;
  const records = async (action: string) =>
    (await kms.records()).filter((record) => record.action === action);
  const create = async (...names: string[]) => {
    for (const name of names) expect((await lost.create(name)).status).toBe(201);
  };
  const createMany = async (count = many.keys) => {
    const names = Array.from({ length: count }, (_, n) => `k${String(n).padStart(4, '0')}-dek`);
    for (let at = 0; at < count; at += 30)
      await Promise.all(names.slice(at, at + 30).map((name) => create(name)));
    return names;
  };
  /** A take-over in this process, on a store that a test may disturb. */
  const disturbed = async (disturb: (store: FaultyStore) => void) => {
    const faulty = new FaultyStore();
    disturb(faulty);
    const action = async (deps: CliDeps) => {
      const wanted = { storage: next.id, of: lost.id, force: false };
      const on = { ...deps, store: faulty.decorate(deps.store) };
      return takeOverKeys(on, wanted, await holdingsOf(deps, wanted), CLI_CALLER, () => undefined);
    };
    return withKeys({ NODE_ENV: 'test', ...(await environment()) }, action);
  };

  it('shows how many keys it would give and which, and changes nothing without --confirm', async () => {
    await create('b-dek', 'a-dek');
    await next.create('c-dek');
    const before = await kms.store.auditHead();
    expect(await takeOver()).toEqual({
      code: 0,
      stdout: `${next.id} would take over 2 keys (a-dek, b-dek) of ${lost.id}\nnothing was changed: add --confirm to do it\n`,
      stderr: '',
    });
    const { code, stdout } = await takeOver('--json');
    expect([code, JSON.parse(stdout)]).toEqual([
      0,
      {
        storage: next.id,
        of: lost.id,
        taken: 0,
        keys: { count: 2, first: ['a-dek', 'b-dek'] },
        deletion_intended: { count: 0, first: [] },
        damaged: { count: 0, first: [] },
      },
    ]);
    expect(await kms.store.auditHead()).toEqual(before);
    expect(await holderOf('a-dek')).toBe(lost.id);
  });

  it('gives every key in every state, with a CRITICAL record of the whole act before one of each key', async () => {
    await create('disabled-dek', 'enabled-dek', 'offered-dek', 'pending-dek', 'shredded-dek', 'stays-dek');
    await keys.post('disabled-dek', 'disable');
    await keys.delete('pending-dek');
    const move = randomUUID();
    await lost.act('offer', 'offered-dek', { to: randomUUID(), move });
    const { receipt } = await lost.intend('shredded-dek');
    await lost.act('shred', 'shredded-dek', { receipt });
    await keys.shred('stays-dek');
    await keys.create('free-dek');
    await keys.create('unknown-dek');
    await setKey(kms, 'unknown-dek', { holder: 'unknown' });
    const other = await TestStorageNode.of(kms);
    await other.create('theirs-dek');
    using events = await openEvents(kms.running.internalUrl, await kms.fullToken());
    const { seq } = await kms.store.auditHead();
    const given = ['disabled-dek', 'enabled-dek', 'offered-dek', 'pending-dek', 'shredded-dek'];

    expect(await takeOver('--confirm')).toEqual({
      code: 0,
      stdout: `${next.id} has taken over 5 keys of ${lost.id}\n`,
      stderr: '',
    });

    for (const name of given) expect([name, await holderOf(name)]).toEqual([name, next.id]);
    expect((await keys.read('offered-dek')).json()).not.toHaveProperty('offered_to');
    const states = await Promise.all(
      given.map(async (name) => (await kms.store.findKey(name, 'current'))?.record?.state),
    );
    expect(states).toEqual(['disabled', 'enabled', 'enabled', 'pending_deletion', 'destroyed']);
    expect(await holderOf('free-dek')).toBeNull();
    expect(await holderOf('unknown-dek')).toBe('unknown');
    expect([await holderOf('theirs-dek'), await holderOf('stays-dek')]).toEqual([other.id, lost.id]);
    const [act, ...each] = (await kms.records()).filter((record) => record.seq > seq);
    // So that its Bundoc looks for projects that it lacks, whatever it did meanwhile.
    expect(each.filter(({ action }) => action === 'storage.take_over')).toMatchObject([
      { severity: 'CRITICAL', actor: 'cli', detail: { storage: next.id, taken_over_ms: expect.any(Number) } },
    ]);
    expect((await next.export('enabled-dek')).json()).toMatchObject({ code: 'storage_superseded' });
    expect((await next.advance()).status).toBe(200);
    expect(act).toEqual({
      seq: expect.any(Number),
      time: expect.any(String),
      severity: 'CRITICAL',
      action: 'keys.take_over',
      outcome: 'allowed',
      actor: 'cli',
      detail: { from: lost.id, to: next.id, count: 5, force: false },
      prev_hash: expect.any(String),
      hash: expect.any(String),
    });
    const taken = each.filter(({ action }) => action === 'key.take_over');
    expect(taken.map(({ key }) => key).sort()).toEqual(given);
    for (const { severity, actor, detail } of taken)
      expect({ severity, actor, detail }).toEqual({
        severity: 'CRITICAL',
        actor: 'cli',
        detail: {
          key_id: expect.any(String),
          holder: next.id,
          from: lost.id,
          force: false,
          revision: expect.any(Number),
          record: expect.any(String),
        },
      });
    await expect
      .poll(() =>
        events.seen
          .filter(({ type }) => type === 'key.take_over')
          .map(({ data }) => data.name)
          .sort(),
      )
      .toEqual(given);
    expect((await next.export('enabled-dek')).status).toBe(200);
    expect((await lost.export('enabled-dek')).json()).toMatchObject({
      code: 'key_held_elsewhere',
      storage: next.id,
    });
    expect((await run('audit', 'verify')).code).toBe(0);
  });

  it('adds no record when there is nothing left to give', async () => {
    await create('a-dek');
    await takeOver('--confirm');
    const again = await takeOver('--confirm', '--json');
    expect([again.code, JSON.parse(again.stdout).taken]).toEqual([0, 0]);
    for (const options of [[], ['--confirm']])
      expect(await takeOver(...options)).toEqual({
        code: 0,
        stdout: `${lost.id} has no key for ${next.id}; "bunkms storage list --json" has the number of keys of each storage\n`,
        stderr: '',
      });
    expect(await records('keys.take_over')).toHaveLength(1);
    expect(await records('key.take_over')).toHaveLength(1);
  });

  it('leaves keys whose deletion has begun and damaged keys, names them and fails, after giving all others', async () => {
    await create('a-dek', 'intended-dek', 'damaged-dek');
    await lost.intend('intended-dek');
    await testStorage().edit(kms.dataDir, `UPDATE keys SET holder = '${next.id}' WHERE name = 'damaged-dek'`);
    const shown = await takeOver();
    expect(shown).toMatchObject({ code: 0, stderr: '' });
    const lines = [
      'their deletion has begun, so restore or destroy them first: 1 key (intended-dek)',
      'their holder is unknown, because they are damaged; run "bunkms recover": 1 key (damaged-dek)',
    ];
    for (const line of lines) expect(shown.stdout).toContain(`${line}\n`);
    const taken = await takeOver('--confirm');
    expect(taken).toEqual({
      code: 1,
      stdout: `${next.id} has taken over 1 key of ${lost.id}\n`,
      stderr: `bunkms: keys are left; ${lines.join('; ')}\n`,
    });
    expect([await holderOf('a-dek'), await holderOf('intended-dek')]).toEqual([next.id, lost.id]);
    await keys.post('intended-dek', 'restore');
    await takeOver('--confirm');
    expect(await holderOf('intended-dek')).toBe(next.id);
  });

  it('refuses while a lease of the storage is live, names its end and --force, and changes nothing', async () => {
    await create('a-dek', 'idle-dek');
    expect((await lost.export('a-dek')).status).toBe(200);
    const before = await kms.store.auditHead();
    const shown = await takeOver();
    expect(shown.code).toBe(0);
    const until = /may use keys until (\S+Z);/.exec(shown.stdout)?.[1];
    expect(Date.parse(String(until))).toBeGreaterThan(Date.now() + 800_000);
    const refused = await takeOver('--confirm');
    expect(refused).toEqual({
      code: 5,
      stdout: '',
      stderr: `bunkms: lease_live: a copy of a key may be in use until ${until}; wait until then, or add --force if the machine that used the key is gone or stopped for certain: otherwise two storages use one key at once\n`,
    });
    expect(await kms.store.auditHead()).toEqual(before);
    const forced = await takeOver('--confirm', '--force', '--json');
    expect([forced.code, JSON.parse(forced.stdout).taken]).toEqual([0, 2]);
    const details = (await kms.records())
      .filter(({ action }) => action.endsWith('.take_over'))
      .map(({ action, detail }) => [action, detail?.['force']]);
    expect(details).toEqual([
      ['keys.take_over', true],
      ['storage.take_over', undefined],
      ['key.take_over', true],
      ['key.take_over', true],
    ]);
    // The lease is still live, but there is nothing left to give.
    expect((await takeOver('--confirm')).code).toBe(0);
  });

  it('leaves a key that another client uses, and fails', async () => {
    await create('a-dek', 'used-dek');
    expect((await keys.export('used-dek')).status).toBe(200);
    const taken = await takeOver('--confirm');
    expect(taken.code).toBe(1);
    expect(taken.stderr).toContain('used in the meantime');
    expect(taken.stderr).toContain('1 key (used-dek)');
    expect([await holderOf('a-dek'), await holderOf('used-dek')]).toEqual([next.id, lost.id]);
  });

  it('continues with the keys that are left after an interruption', async () => {
    const names = await createMany();
    const interrupted = disturbed(({ replaced }) => {
      let calls = 0;
      replaced.updateKey = (real, ...args) => {
        if (++calls > many.interruptedAt) throw new Error('interrupted');
        return real(...args);
      };
    });
    await expect(interrupted).rejects.toThrow('interrupted');
    const before = await records('key.take_over');
    expect(before.length).toBeGreaterThan(0);
    expect(before.length).toBeLessThanOrEqual(many.interruptedAt);
    await expectSound(kms);
    const again = await takeOver('--confirm', '--json');
    expect([again.code, JSON.parse(again.stdout).taken]).toEqual([0, many.keys - before.length]);
    const acts = await records('keys.take_over');
    expect(acts.map(({ detail }) => detail?.['count'])).toEqual([many.keys, many.keys - before.length]);
    const taken = (await records('key.take_over')).map(({ key }) => String(key));
    expect(taken.sort()).toEqual(names);
    expect(await run('storage', 'list', '--json').then(({ stdout }) => JSON.parse(stdout).storages)).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ id: lost.id, keys: 0 }),
        expect.objectContaining({ id: next.id, keys: many.keys }),
      ]),
    );
    expect((await run('audit', 'verify')).code).toBe(0);
  });

  it('names keys that came to the storage while it ran, which the next run gives', async () => {
    await create('b-dek');
    const { taken, left } = await disturbed(({ replaced }) => {
      replaced.updateKey = async (real, ...args) => {
        replaced.updateKey = (next_, ...more) => next_(...more);
        await create('a-dek');
        return real(...args);
      };
    });
    expect([taken, left.keys]).toEqual([1, { count: 1, first: ['a-dek'] }]);
    expect((await takeOver('--confirm')).code).toBe(0);
    expect(await holderOf('a-dek')).toBe(next.id);
  });

  it('gives each key to one of two storages, when two administrators give them at once', async () => {
    const names = await createMany(60);
    const third = await TestStorageNode.of(kms);
    const runs = await Promise.all([
      takeOver('--confirm', '--json'),
      run('storage', 'take-over', third.id, '--of', lost.id, '--confirm', '--json'),
    ]);
    expect(runs.map(({ code }) => code)).toEqual([0, 0]);
    const taken = runs.map(({ stdout }) => JSON.parse(stdout).taken);
    expect(taken[0] + taken[1]).toBe(60);
    const each = await records('key.take_over');
    expect(each.map(({ key }) => String(key)).sort()).toEqual(names);
    for (const { key, detail } of each) expect(await holderOf(String(key))).toBe(detail?.['holder']);
    await expectSound(kms);
  });

  it('refuses a storage that is unknown, the same one, and options that do not fit, without a record', async () => {
    await create('a-dek');
    const before = await kms.store.auditHead();
    const ofLost = (id: string) => run('storage', 'take-over', id, '--of', lost.id, '--confirm', '--force');
    const unknown = randomUUID();
    const toUnknown = await ofLost(unknown);
    expect([toUnknown.code, toUnknown.stderr]).toEqual([3, expect.stringContaining(`no storage ${unknown}`)]);
    const fromUnknown = await run('storage', 'take-over', next.id, '--of', unknown, '--confirm');
    expect([fromUnknown.code, fromUnknown.stderr]).toEqual([3, expect.stringContaining(unknown)]);
    expect((await ofLost(lost.id)).code).toBe(2);
    for (const of of ['unknown', '', '*', '../a', `${lost.id}' OR 1=1 --`, `${lost.id}\n`])
      expect((await run('storage', 'take-over', next.id, '--of', of, '--confirm')).code).toBe(2);
    expect((await takeOver('--generation', randomUUID())).code).toBe(2);
    expect((await run('storage', 'take-over', next.id, '--confirm')).code).toBe(2);
    expect(await kms.store.auditHead()).toEqual(before);
    expect(await holderOf('a-dek')).toBe(lost.id);
  });

  it('counts again as a take-over of the storage when its Bundoc has started in between', async () => {
    await create('a-dek', 'b-dek');
    const takenOverMs: unknown[] = [];
    await disturbed(({ replaced }) => {
      replaced.updateKey = async (real, ...args) => {
        replaced.updateKey = (next_, ...more) => next_(...more);
        takenOverMs.push((await next.advance()).json().taken_over_ms);
        return real(...args);
      };
    });
    takenOverMs.push((await next.advance()).json().taken_over_ms);
    expect(takenOverMs[1]).toBeGreaterThan(Number(takenOverMs[0]));
    expect(await records('storage.take_over')).toHaveLength(2);
  });

  it('takes keys back from a storage that never existed', async () => {
    const typo = randomUUID();
    await create('a-dek');
    await run('key', 'take-over', 'a-dek', '--storage', typo);
    const taken = await run('storage', 'take-over', next.id, '--of', typo, '--confirm');
    expect([taken.code, await holderOf('a-dek')]).toEqual([0, next.id]);
  });

  it('gives every key once in all, although the first run ends by kill -9', async () => {
    const names = await createMany(runs(40, 200));
    const variables = { ...(await environment()), NODE_ENV: 'test' };
    const args = ['storage', 'take-over', next.id, '--of', lost.id, '--confirm'];
    const child = spawnBunkms(variables, args);
    const exited = once(child, 'exit');
    while (child.exitCode === null && (await holderOf(names[0] as string)) !== next.id) await delay(1);
    child.kill('SIGKILL');
    await exited;
    await expectSound(kms);
    expect((await takeOver('--confirm')).code).toBe(0);
    const taken = (await records('key.take_over')).map(({ key }) => String(key));
    expect(taken.sort()).toEqual(names);
    for (const name of names) expect(await holderOf(name)).toBe(next.id);
    expect((await run('audit', 'verify')).code).toBe(0);
  });

  // Some records are there and some are not: where all are, `npm run test:long` looks as well.
  it.each(LONG ? [30, 12] : [12])(
    'is in a restored store for each key whose record the copy of the chain has: %i of 30',
    async (given) => {
      const names = await createMany(30);
      const { archive } = await backupOf(kms);
      await takeOver('--confirm');
      const auditCopy = await auditCopyOf(kms);
      const lines = readFileSync(auditCopy, 'utf8').trimEnd().split('\n');
      const places = lines.flatMap((line, at) => (line.includes('"key.take_over"') ? [at] : []));
      const kept = lines.slice(0, (places[given - 1] as number) + 1);
      writeFileSync(auditCopy, kept.map((line) => `${line}\n`).join(''));
      const dataDir = join(folder, 'restored');
      await restoreInto({ archive, kek: kms.kek, dataDir, auditCopy });
      await using restored = await startKms({ dataDir, kek: kms.kek });
      const recorded = new Set(
        kept
          .map((line) => JSON.parse(line))
          .flatMap(({ action, key }) => (action === 'key.take_over' ? [key] : [])),
      );
      expect(recorded.size).toBe(given);
      for (const name of names) {
        const record = (await restored.store.findKey(name, 'current'))?.record;
        expect([record?.state, record?.holder]).toEqual(['enabled', recorded.has(name) ? next.id : lost.id]);
      }
      await expectSound(restored);
    },
  );
}
