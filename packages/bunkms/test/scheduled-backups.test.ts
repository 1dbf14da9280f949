import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { publishPrivateFile } from '@bundoc/shared/files/private-file';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { needs } from '@bundoc/shared/testing/programs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  BACKUP_EVERY_MS,
  BackupFolder,
  DAYS_KEPT,
  LEFT_AFTER_MS,
  NEWEST_KEPT,
  WRITING_MS,
} from '../src/recovery/backup-folder.ts';
import { ScheduledBackups, type ScheduledBackupsOptions } from '../src/recovery/scheduled-backups.ts';
import { newDataDir, startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { auditCopyOf, restoreInto, vaultOf } from './support/recovery.ts';
import { materialOf } from './support/restored-stores.ts';
import { testStorage } from './support/storage.ts';
import { usePostgresStorage } from './support/use-postgres-storage.ts';

const HOUR_MS = 3_600_000;
const DAMAGE = `DELETE FROM keys WHERE name = 'a-dek'`;
const ID = '0123abcd';
const FIRST = `bunkms-${ID}-20260101T000000Z.backup`;
const TEMPORARY = `${FIRST}.0123456789ab.tmp`;

let clock: FakeClock;
let kms: TestKms;
let keys: KeyCalls;
let folder: string;
let failures: number;
let lines: { level: string; msg: string; folder?: string }[];
beforeEach(async () => {
  clock = new FakeClock();
  kms = await startKms({ clock });
  keys = await KeyCalls.of(kms);
  await keys.create('a-dek');
  folder = join(newDataDir(), 'backups');
  failures = 0;
  lines = [];
});
afterEach(async () => {
  await kms[Symbol.asyncDispose]();
  rmSync(join(folder, '..'), { recursive: true, force: true });
});

const folderOf = (id: string) => new BackupFolder(folder, async () => id);
const nameAt = (timeMs: number) =>
  `bunkms-${ID}-${new Date(timeMs).toISOString().replace(/[-:]|\.\d+/g, '')}.backup`;

async function backupsOf(more: Partial<ScheduledBackupsOptions> = {}): Promise<ScheduledBackups> {
  const { chainKey } = await kms.secrets();
  const logger = createLogger({
    service: 'bunkms',
    level: 'info',
    destination: { write: (line: string) => void lines.push(JSON.parse(line)) },
  });
  return new ScheduledBackups({
    folder: folderOf(ID),
    store: kms.store,
    vault: vaultOf(kms.kek),
    chainKey,
    trust: { isSealed: false, require: () => undefined },
    clock,
    logger,
    metrics: { backupFailures: { inc: () => failures++ } },
    ...more,
  });
}

const files = () => readdirSync(folder).sort();
const newest = async (): Promise<number> => {
  const it = folderOf(ID);
  await it.read(clock.now());
  return it.newestMs;
};
const backupRecords = async () =>
  (await kms.records()).filter(({ action }) => action === 'store.backup').length;

/** Fills the folder with a file for each of the last hours, and returns their names, newest first. */
function plantBackups(count: number): string[] {
  mkdirSync(folder, { recursive: true });
  return Array.from({ length: count }, (_, n) => {
    const name = nameAt(clock.now() - (n + 1) * HOUR_MS);
    writeFileSync(join(folder, name), 'x');
    return name;
  });
}

function plantTemporary(ageMs: number): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, TEMPORARY), 'x');
  const time = new Date(clock.now() - ageMs);
  utimesSync(join(folder, TEMPORARY), time, time);
}

function isRestorable(): void {
  it('a backup that BunKMS makes of itself is for its user alone, and a restore of it brings back every key and token', async () => {
    const material = await materialOf(keys, 'a-dek');
    const may_issue = { scopes: ['docs:read' as const], projects: ['acme'], keys: ['acme-*'], ttl_s: 900 };
    const { jti } = await kms.issue({ scope: ['kms:issue_client'], keys: [], may_issue });
    await (await backupsOf()).run();
    expect([files(), failures]).toEqual([[FIRST], 0]);
    expect([statSync(folder).mode & 0o777, statSync(join(folder, FIRST)).mode & 0o777]).toEqual([
      0o700, 0o600,
    ]);
    const dataDir = newDataDir();
    const archive = readFileSync(join(folder, FIRST));
    await restoreInto({ archive, kek: kms.kek, dataDir, auditCopy: await auditCopyOf(kms), clock });
    await using restored = await startKms({ dataDir, kek: kms.kek, clock });
    expect(await materialOf(await KeyCalls.of(restored), 'a-dek')).toBe(material);
    expect(await restored.verify()).toMatchObject({ intact: true });
    expect(await restored.store.findToken(jti)).toMatchObject({ row: { may_issue } });
    rmSync(dataDir, { recursive: true });
  });

  it('a folder that hangs holds neither the stop of BunKMS nor the snapshot of its store', async () => {
    const time = new Date(clock.now()).toISOString();
    const filler = { time, severity: 'INFO', action: 'filler', outcome: 'allowed' } as const;
    // More than a piece of the backup, so that it is still being read.
    await kms.store.appendAudit(
      Array.from({ length: 1_000 }, () => ({ ...filler, detail: { text: 'x'.repeat(500) } })),
    );
    const reached = Promise.withResolvers<void>();
    const backups = await backupsOf({
      closeMs: 50,
      publish: async (_path, content) => {
        await (content as AsyncGenerator<Buffer>).next();
        await (content as AsyncGenerator<Buffer>).next();
        reached.resolve();
        await new Promise(() => undefined);
      },
    });
    void backups.run();
    await reached.promise;
    await backups[Symbol.asyncDispose]();
    await kms.running.close();
  });

  it('a folder that hangs keeps no destroyed key in the files of the store, and counts as a failure', async () => {
    const time = new Date(clock.now()).toISOString();
    const filler = { time, severity: 'INFO', action: 'filler', outcome: 'allowed' } as const;
    await kms.store.appendAudit(
      Array.from({ length: 1_000 }, () => ({ ...filler, detail: { text: 'x'.repeat(500) } })),
    );
    const reached = Promise.withResolvers<void>();
    await using backups = await backupsOf({
      closeMs: 50,
      publish: async (_path, content) => {
        await (content as AsyncGenerator<Buffer>).next();
        await (content as AsyncGenerator<Buffer>).next();
        reached.resolve();
        await new Promise(() => undefined);
      },
    });
    void backups.run();
    await reached.promise;
    await keys.make('b-dek', 'destroyed');
    expect(await kms.store.scrub()).toBe(false);
    clock.advance(60_000);
    void backups.run();
    await expect.poll(() => kms.store.scrub()).toBe(true);
    expect(failures).toBe(1);
  });

  it('a backup of a damaged store says what it lacks, once, and removes no older backup', async () => {
    const planted = plantBackups(NEWEST_KEPT + 2);
    await testStorage().edit(kms.dataDir, DAMAGE);
    const backups = await backupsOf();
    const written: string[] = [];
    for (let time = 0; time < 2; time++) {
      clock.advance(HOUR_MS);
      await backups.run();
      written.push(nameAt(clock.now()));
      expect(files()).toEqual([...planted, ...written].sort());
    }
    expect([await newest(), failures]).toEqual([clock.now(), 2]);
    expect(lines).toMatchObject([
      { msg: expect.stringContaining('older backups stay: the key a-dek is lost'), folder },
    ]);
  });
}

describe('on SQLite,', isRestorable);
describe('on PostgreSQL,', needs('postgresql'), () => {
  usePostgresStorage();
  isRestorable();
});

describe('a backup of its own', () => {
  it('is written once the newest is an hour old, and its name has the time as of which it is', async () => {
    const backups = await backupsOf();
    await backups.run();
    clock.advance(BACKUP_EVERY_MS - 1);
    await backups.run();
    expect([files(), await backupRecords()]).toEqual([[FIRST], 1]);
    clock.advance(1);
    await (await backupsOf()).run();
    expect([files(), await backupRecords()]).toEqual([[FIRST, `bunkms-${ID}-20260101T010000Z.backup`], 2]);
    expect(await newest()).toBe(clock.now());
  });

  it('removes all but the newest 24 and the newest of each of 7 days, and no file with another name', async () => {
    const planted = plantBackups(10 * 24);
    const foreign = [
      ...['notes.txt', `bunkms-${ID}-20250101T000000Z.backup.txt`, `x${FIRST}`],
      ...['kms-20250101.backup', `bunkms-${ID}-20259999T000000Z.backup`, `${FIRST}.tmp`],
    ];
    for (const name of foreign) writeFileSync(join(folder, name), 'x');
    const subfolder = `bunkms-${ID}-20250101T000000Z.backup`;
    mkdirSync(join(folder, subfolder));
    await (await backupsOf()).run();
    // The new one is the first of its day, and those planted are an hour apart before it.
    const days = Array.from({ length: DAYS_KEPT - 1 }, (_, day) => planted[24 * day] as string);
    const kept = new Set([FIRST, ...planted.slice(0, NEWEST_KEPT - 1), ...days]);
    expect(files()).toEqual([...kept, ...foreign, subfolder].sort());
  });

  it('that fails removes nothing, leaves no file, and is logged once for each reason', async () => {
    const planted = plantBackups(NEWEST_KEPT + 2);
    let reason: string | undefined = 'ENOSPC';
    const backups = await backupsOf({
      publish: (path, content, examine) =>
        publishPrivateFile(
          path,
          failingAfterOne(content as AsyncIterable<Buffer>, () => reason),
          examine,
        ),
    });
    for (const [at, next] of ['ENOSPC', 'ENOSPC', 'EIO', undefined].entries()) {
      reason = next;
      await backups.run();
      if (next !== undefined) expect([files(), failures]).toEqual([planted.toSorted(), at + 1]);
      clock.advance(HOUR_MS);
    }
    expect(files()).toHaveLength(NEWEST_KEPT + 1);
    expect(lines).toMatchObject([
      { level: 'warn', msg: 'BunKMS was not backed up; trying again: ENOSPC', folder },
      { level: 'warn', msg: 'BunKMS was not backed up; trying again: EIO', folder },
      { level: 'info', msg: 'BunKMS is backed up again', folder },
    ]);
  });

  it('does not count a half file of a process that ended, and removes it', async () => {
    plantTemporary(LEFT_AFTER_MS);
    expect(await newest()).toBe(0);
    await (await backupsOf()).run();
    expect(files()).toEqual([FIRST]);
  });

  it('is not written while another process writes one into the same folder, nor removes its file', async () => {
    plantTemporary(WRITING_MS - 1);
    await (await backupsOf()).run();
    expect([files(), failures, await backupRecords()]).toEqual([[TEMPORARY], 0, 0]);
  });

  it('is not written while the service is sealed, nor counts when it seals itself meanwhile', async () => {
    let isSealed = true;
    const require = () => {
      throw new Error('sealed');
    };
    const backups = await backupsOf({
      trust: {
        get isSealed() {
          return isSealed;
        },
        require,
      },
    });
    await backups.run();
    expect([failures, await backupRecords()]).toEqual([0, 0]);
    isSealed = false;
    await backups.run();
    expect([files(), failures, await newest()]).toEqual([[], 1, 0]);
  });

  it('is written after the clock was set back, and those that are dated later are removed first', async () => {
    const planted = plantBackups(NEWEST_KEPT);
    clock.setWall(clock.now() - 40 * HOUR_MS);
    const backups = await backupsOf();
    for (let hour = 0; hour < 3; hour++) {
      await backups.run();
      await backups.run();
      const written = nameAt(clock.now());
      expect(files()).toContain(written);
      expect([await newest(), await backupRecords()]).toEqual([clock.now(), hour + 1]);
      clock.advance(HOUR_MS);
    }
    expect(files()).toHaveLength(NEWEST_KEPT);
    expect(planted.filter((name) => !files().includes(name))).toEqual(planted.slice(0, 3));
  });

  it('stands beside those of another installation in the same folder, and neither counts or removes them', async () => {
    const planted = plantBackups(NEWEST_KEPT + 2);
    await (await backupsOf({ folder: folderOf('89abcdef') })).run();
    const other = FIRST.replace(ID, '89abcdef');
    expect(files()).toEqual([...planted, other].sort());
    await (await backupsOf()).run();
    expect(files()).toContain(other);
    expect(files()).toHaveLength(NEWEST_KEPT + 2);
  });

  it('that the stop of the service ends leaves no file, and is no failure', async () => {
    const reached = Promise.withResolvers<void>();
    const backups = await backupsOf({
      publish: (path, content, examine) =>
        publishPrivateFile(path, content, async (temporary) => {
          reached.resolve();
          const stopped = backups[Symbol.asyncDispose]();
          return examine(temporary).finally(() => void stopped);
        }),
    });
    const running = backups.run();
    await reached.promise;
    await running;
    expect([files(), failures, lines]).toEqual([[], 0, []]);
    await backups.run();
    expect(files()).toEqual([]);
  });
});

describe('a folder of backups', () => {
  it('that goes away is named once with the reason, costs no audit record, and is not made again', async () => {
    const backups = await backupsOf();
    await backups.run();
    rmSync(folder, { recursive: true });
    for (let hour = 0; hour < 3; hour++) {
      clock.advance(HOUR_MS);
      await backups.run();
    }
    expect([failures, await backupRecords()]).toEqual([3, 1]);
    expect(lines).toMatchObject([{ level: 'warn', msg: expect.stringContaining('ENOENT'), folder }]);
    mkdirSync(folder);
    clock.advance(HOUR_MS);
    await backups.run();
    expect([files().length, lines.at(-1)?.msg]).toEqual([1, 'BunKMS is backed up again']);
  });

  it.each([
    ['a file', () => writeFileSync(folder, 'a file'), 'is no folder: name one in BUNKMS_BACKUP_TO'],
    // Node's own recursive mkdir never returns there.
    ['in a file system without folders', () => (folder = '/proc/bunkms-backups'), 'ENOENT'],
    ['below a folder that does not exist', () => (folder = join(folder, 'none', 'backups')), 'ENOENT'],
  ])(
    'that cannot be made, as it is %s, is logged at once, and costs no audit record',
    async (_where, spoil, code) => {
      const made = folder;
      spoil();
      await (await backupsOf()).run();
      expect([failures, await backupRecords()]).toEqual([1, 0]);
      expect(lines).toMatchObject([{ level: 'warn', msg: expect.stringContaining(code), folder }]);
      folder = made;
    },
  );

  it(
    'on a full disk keeps its backups, and gets the next one when there is space',
    needs('mount'),
    async () => {
      mkdirSync(folder, { recursive: true });
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder], { stdio: 'pipe' });
      try {
        const backups = await backupsOf();
        await backups.run();
        writeFileSync(join(folder, 'ballast'), Buffer.alloc(60_000 - statSync(join(folder, FIRST)).size));
        clock.advance(HOUR_MS);
        await backups.run();
        expect([files(), failures]).toEqual([['ballast', FIRST].sort(), 1]);
        expect(lines).toMatchObject([
          { level: 'warn', msg: expect.stringContaining('ENOSPC'), folder, free_mib: 0 },
        ]);
        rmSync(join(folder, 'ballast'));
        clock.advance(HOUR_MS);
        await backups.run();
        expect([files().length, await newest()]).toEqual([2, clock.now()]);
      } finally {
        execFileSync('umount', ['-l', folder], { stdio: 'pipe' });
      }
    },
  );
});

/** The content up to its first piece, then an error of the system. */
async function* failingAfterOne(
  content: AsyncIterable<Buffer>,
  code: () => string | undefined,
): AsyncGenerator<Buffer> {
  for await (const piece of content) {
    yield piece;
    const fault = code();
    if (fault !== undefined) throw Object.assign(new Error(fault), { code: fault });
  }
}
