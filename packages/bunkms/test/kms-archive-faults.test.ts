import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger } from '@bundoc/shared/logs/logger';
import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Answering, S3Server } from '../../shared/test/s3-server.ts';
import { ArchivedBackups } from '../src/archive/archived-backups.ts';
import { openArchive } from '../src/archive/open-archive.ts';
import { backupsIn } from '../src/archive/read-backups.ts';
import { BACKUP_EVERY_MS } from '../src/recovery/backup-folder.ts';
import { ScheduledBackups } from '../src/recovery/scheduled-backups.ts';
import { bunkms } from './support/command.ts';
import { newKek, startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { vaultOf } from './support/recovery.ts';

const ID = '0123abcd';

let root: string;
let archive: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'bunkms-archive-'));
  archive = join(root, 'archive');
  mkdirSync(archive);
});
afterEach(() => rmSync(root, { recursive: true }));

/** A service that answers for the bucket, and a file with a credential. */
async function bucketOf(answer: Answering, isKnown: boolean) {
  const server = await S3Server.start(answer);
  const credential = server.newCredential({ isTemporary: false });
  if (!isKnown) server.credentials.clear();
  const path = join(root, 'credentials');
  const { accessKeyId, secretAccessKey } = credential;
  writeFileSync(
    path,
    `[default]\naws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secretAccessKey}\n`,
  );
  const setting = `s3://bucket/kms?endpoint=${server.url}&region=eu-central-1&credentials=${path}`;
  return { server, setting, secret: secretAccessKey };
}

const linesWith = (kms: TestKms, text: string) => kms.logs.filter((line) => line.includes(text)).length;

async function expectServing(kms: TestKms): Promise<void> {
  const keys = await KeyCalls.of(kms);
  await keys.create('a-dek');
  for (let n = 0; n < 20; n++) expect((await keys.export('a-dek')).status).toBe(200);
  expect((await kms.internal('/ready')).status).toBe(200);
}

describe('a running service whose archive', () => {
  it('refuses the credential serves on, and says so once in its log without the credential', async () => {
    const { server, setting, secret } = await bucketOf(() => ({ status: 200 }), false);
    await using _ = server;
    await using kms = await startKms({ config: { archive: setting } });
    await expectServing(kms);
    const failed = async () => (await kms.internal('/metrics')).text;
    await expect.poll(failed).toMatch(/^bunkms_backup_failures_total [1-9]/m);
    await expect.poll(failed).toMatch(/^bunkms_audit_ship_failures_total [2-9]/m);
    expect(linesWith(kms, 'BunKMS was not backed up; trying again')).toBe(1);
    expect(linesWith(kms, 'cannot be copied to s3://bucket/kms')).toBe(1);
    expect(linesWith(kms, 'InvalidAccessKeyId (403): see that the credential works')).toBe(2);
    expect(kms.logs.join('')).not.toContain(secret);
    expect(await kms.internal('/metrics')).toMatchObject({
      text: expect.stringMatching(/^bunkms_last_backup_timestamp_seconds 0$/m),
    });
  });

  it('never answers delays no request, and not the stop of the service', async () => {
    const { server, setting } = await bucketOf(() => new Promise(() => undefined), true);
    await using _ = server;
    const kms = await startKms({ config: { archive: setting } });
    await expectServing(kms);
    await expect.poll(() => server.requests.length).toBeGreaterThan(1);
    const before = performance.now();
    await kms[Symbol.asyncDispose]();
    expect(performance.now() - before).toBeLessThan(9_000);
  });
});

describe('a backup to an archive', () => {
  let clock: FakeClock;
  let kms: TestKms;
  let failures: number;
  let lines: { level: string; msg: string }[];
  beforeEach(async () => {
    clock = new FakeClock();
    kms = await startKms({ clock });
    failures = 0;
    lines = [];
  });
  afterEach(() => kms[Symbol.asyncDispose]());

  const spool = () => join(root, 'spool');
  async function backupsTo(objects: ObjectStorage): Promise<ScheduledBackups> {
    const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
    return new ScheduledBackups({
      folder: new ArchivedBackups(objects, spool(), async () => ID),
      store: kms.store,
      vault: vaultOf(kms.kek),
      chainKey: (await kms.secrets()).chainKey,
      trust: { isSealed: false, require: () => undefined },
      clock,
      logger: createLogger({ service: 'bunkms', level: 'info', destination }),
      metrics: { backupFailures: { inc: () => failures++ } },
      closeMs: 50,
    });
  }

  /** The archive, with another put. */
  function withPut(put: (stored: ObjectStorage, ...args: Parameters<ObjectStorage['put']>) => Promise<void>) {
    const stored = openArchive(archive, {});
    const replaced: ObjectStorage = {
      name: stored.name,
      put: (...args) => put(stored, ...args),
      get: (...args) => stored.get(...args),
      list: (...args) => stored.list(...args),
      delete: () => Promise.reject(new Error('nothing may be deleted')),
      [Symbol.asyncDispose]: () => stored[Symbol.asyncDispose](),
    };
    return replaced;
  }

  const times = async () => {
    const found: number[] = [];
    for await (const { timeMs } of backupsIn(openArchive(archive, {}), ID)) found.push(timeMs - clock.now());
    return found;
  };

  it('is made each hour, also after a restart, overwrites and deletes nothing, and leaves nothing beside the store', async () => {
    mkdirSync(spool());
    writeFileSync(join(spool(), 'of a killed process'), 'x');
    for (let hour = 0; hour < 3; hour++) {
      const objects = withPut((stored, ...args) => stored.put(...args));
      await using backups = await backupsTo(objects);
      await backups.run();
      await backups.run();
      expect([readdirSync(spool()), failures]).toEqual([[], 0]);
      clock.advance(BACKUP_EVERY_MS);
    }
    expect(await times()).toEqual([-3, -2, -1].map((hour) => hour * BACKUP_EVERY_MS));
  });

  it('that the target refuses is tried again later, counts, is logged once, and does not appear', async () => {
    let isFull = true;
    const objects = withPut(async (stored, ...args) => {
      if (isFull) throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
      await stored.put(...args);
    });
    await using backups = await backupsTo(objects);
    for (const wait of [BACKUP_EVERY_MS, 0]) {
      await backups.run();
      clock.advance(wait);
    }
    expect([await times(), failures, readdirSync(spool())]).toEqual([[], 2, []]);
    isFull = false;
    await backups.run();
    expect(await times()).toEqual([]);
    clock.advance(BACKUP_EVERY_MS);
    await backups.run();
    expect(await times()).toEqual([0]);
    expect(lines.map(({ msg }) => msg)).toEqual([
      'BunKMS was not backed up; trying again: no space',
      'BunKMS is backed up again',
    ]);
  });

  it('that the target does not take for a minute counts as a failure, and holds no snapshot of the store', async () => {
    const [reached, hung] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const objects = withPut(() => {
      reached.resolve();
      return hung.promise;
    });
    await using backups = await backupsTo(objects);
    const running = backups.run();
    await reached.promise;
    expect(await kms.store.scrub()).toBe(true);
    clock.advance(60_000);
    void backups.run();
    expect([failures, lines.length]).toEqual([1, 1]);
    hung.resolve();
    await running;
  });

  it('that lacks a part does not count: the one before it is fetched', async () => {
    await using objects = openArchive(archive, {});
    const destination = new ArchivedBackups(objects, root, async () => ID);
    const facts = { audit: { seq: 9, hash: 'x' }, records: 9, keys: 0, versions: 0, tokens: 0, left_out: [] };
    for (const [id, created_at] of [
      ['aaaaaaaa', '2026-01-01T00:00:00.000Z'],
      ['bbbbbbbb', '2026-01-01T01:00:00.000Z'],
    ] as const) {
      const path = join(root, id);
      writeFileSync(path, Buffer.alloc(5_000_000, id));
      await destination.ship(path, { ...facts, id, created_at }, () => undefined);
    }
    const folder = join(archive, 'bunkms', ID, 'backups');
    const [, last = ''] = readdirSync(folder).sort();
    const parts = readdirSync(join(folder, last)).sort();
    expect(parts).toHaveLength(3);
    rmSync(join(folder, last, String(parts[1])));
    const to = join(root, 'fetched');
    const { code, stdout } = await bunkms({}, 'archive', 'fetch', '--from', archive, '--to', to, '--json');
    expect([code, JSON.parse(stdout)]).toMatchObject([0, { created_at: '2026-01-01T00:00:00.000Z' }]);
    expect(readFileSync(JSON.parse(stdout).file).equals(Buffer.alloc(5_000_000, 'aaaaaaaa'))).toBe(true);
  });
});

describe('bunkms doctor', () => {
  const findingOf = async (setting: string) => {
    const environment = { BUNKMS_DATA_DIR: join(root, 'kms'), BUNKMS_KEK: newKek(), BUNKMS_ARCHIVE: setting };
    const { stdout } = await bunkms(environment, 'doctor', '--json');
    return JSON.parse(stdout).findings.find(({ check }: { check: string }) => check === 'archive');
  };

  it('says how old the newest backup in the archive is', async () => {
    const [dataDir, kek] = [join(root, 'kms'), newKek()];
    const environment = { BUNKMS_DATA_DIR: dataDir, BUNKMS_KEK: kek, BUNKMS_ARCHIVE: archive };
    const found = async () => {
      const { findings } = JSON.parse((await bunkms(environment, 'doctor', '--json')).stdout);
      return findings.find(({ check }: { check: string }) => check === 'archived backup');
    };
    expect((await bunkms(environment, 'init')).code).toBe(0);
    expect(await found()).toMatchObject({ verdict: 'warn', found: `there is no backup in ${archive}` });
    await using _ = await startKms({ dataDir, kek, config: { archive } });
    await expect
      .poll(found)
      .toMatchObject({ verdict: 'ok', found: expect.stringContaining('0 minutes old') });
  });

  it('says that an archive takes, gives and lists objects, however often it is asked', async () => {
    for (let time = 0; time < 2; time++) expect(await findingOf(archive)).toMatchObject({ verdict: 'ok' });
  });

  it.each([
    ['a folder that is not there', async () => join(root, 'none'), 'is no folder (ENOENT)'],
    ['a folder in the data folder', async () => join(root, 'kms', 'x'), 'must be outside of the data folder'],
    ['a wrong setting', async () => 's3://bucket?regoin=x', 'did you mean region?'],
    [
      'a wrong credential',
      async () => (await bucketOf(() => ({ status: 200 }), false)).setting,
      'InvalidAccessKeyId (403): see that the credential works, and what it may do',
    ],
  ])('names the fault and the remedy of %s', async (_what, setting, found) => {
    expect(await findingOf(await setting())).toMatchObject({
      verdict: 'fail',
      found: expect.stringContaining(found),
      remedy: expect.stringContaining('BUNKMS_ARCHIVE'),
    });
  });
});
