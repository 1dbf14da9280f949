import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ArchivedBackups } from '../src/archive/archived-backups.ts';
import { chainSink } from '../src/archive/chain-sink.ts';
import { openArchive } from '../src/archive/open-archive.ts';
import { resumedPosition } from '../src/archive/read-chain.ts';
import { bunkms } from './support/command.ts';

const ID = '0123abcd';
const BACKUP_SEQ = 100;
const BACKUP = Buffer.from('a sealed backup');

let root: string;
let archive: string;
beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'bunkms-fetch-'));
  archive = join(root, 'archive');
  mkdirSync(archive);
  await addBackup('2026-01-01T00:00:00.000Z', BACKUP_SEQ);
});
afterEach(() => rmSync(root, { recursive: true }));

async function addBackup(created_at: string, seq: number, id = ID): Promise<void> {
  const path = join(root, 'made');
  writeFileSync(path, BACKUP);
  const counts = { records: seq, keys: 0, versions: 0, tokens: 0, left_out: [] };
  const facts = { id: 'a'.repeat(32), created_at, audit: { seq, hash: '' }, ...counts };
  await new ArchivedBackups(openArchive(archive, {}), root, async () => id).ship(
    path,
    facts,
    () => undefined,
  );
}

const shaOf = (bytes: Buffer | string) => createHash('sha256').update(bytes).digest('hex').slice(0, 32);

/** The hash of a record of a store, which is another one from `fork` on. */
function hashAt(seq: number, fork: number): string {
  return createHash('sha256')
    .update(`${seq} ${seq >= fork ? fork : ''}`)
    .digest('hex');
}

const lineOf = (seq: number, fork: number) =>
  `${JSON.stringify({ format: 'bunkms/audit/v1', seq, prev_hash: hashAt(seq - 1, fork), hash: hashAt(seq, fork) })}\n`;
const NEVER = Number.POSITIVE_INFINITY;
const linesOf = (first: number, last: number, fork = NEVER) =>
  Array.from({ length: last - first + 1 }, (_, n) => lineOf(first + n, fork));

/** Ships records as one object. */
async function ship(first: number, last: number, { epoch = 0, fork = NEVER } = {}): Promise<void> {
  const sink = chainSink(openArchive(archive, {}), async () => ID);
  await sink.append(linesOf(first, last, fork), AbortSignal.timeout(60_000), { first, last, epoch });
}

const objectsBelow = (...path: string[]) => {
  const folder = join(archive, 'bunkms', ID, ...path);
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
};

let runs = 0;
async function fetched(...more: string[]) {
  const to = join(root, `fetched ${++runs}`);
  const { code, stdout, stderr } = await bunkms(
    {},
    ...['archive', 'fetch', '--from', archive, '--to', to, ...more],
  );
  const copy = () => readFileSync(join(to, 'audit.ndjson'), 'utf8');
  return { code, stdout, stderr, to, copy };
}

describe('a fetched copy of the chain', () => {
  it('begins with the last record of the backup, ends with the last one shipped, and has each once', async () => {
    for (let first = 1; first <= 201; first += 20) await ship(first, first + 19);
    const { code, copy, stdout, to } = await fetched();
    expect([code, copy()]).toEqual([0, linesOf(BACKUP_SEQ, 220).join('')]);
    expect(stdout).toContain(
      `Next: bunkms restore '${to}/bunkms-${ID}-20260101T000000Z.backup' --audit-copy '${to}/audit.ndjson'`,
    );
  });

  it('has each record once, when several nodes shipped the chain, or one shipped it again', async () => {
    await ship(1, 120);
    await ship(1, 110);
    await ship(111, 130);
    await ship(121, 150);
    await ship(131, 140);
    await ship(151, 160);
    expect((await fetched()).copy()).toBe(linesOf(BACKUP_SEQ, 160).join(''));
  });

  it('has both ends of a chain that was restored, the lost one first', async () => {
    await ship(1, 150);
    await ship(1, 130, { epoch: 1_767_225_600_000, fork: 121 });
    const expected = [...linesOf(BACKUP_SEQ, 150), ...linesOf(BACKUP_SEQ, 130, 121)];
    expect((await fetched()).copy()).toBe(expected.join(''));
  });

  it('continues in the epoch of a restore that lost nothing', async () => {
    await ship(1, 150);
    await ship(151, 160, { epoch: 1_767_225_600_000 });
    expect((await fetched()).copy()).toBe(linesOf(BACKUP_SEQ, 160).join(''));
  });

  it.each([
    ['lags behind the backup', () => ship(1, 99)],
    [
      'was restored, and has not come as far as the backup',
      () => Promise.all([ship(1, 150), ship(1, 99, { epoch: 1_767_225_600_000, fork: 90 })]),
    ],
  ])('is not there when the chain %s, and the output says what follows', async (_what, fill) => {
    await fill();
    const { code, stdout, to } = await fetched();
    expect([code, readdirSync(to)]).toEqual([0, [`bunkms-${ID}-20260101T000000Z.backup`]]);
    expect(stdout).toContain('ends with record 99, before record 100 of the backup: keys come back disabled');
    expect(stdout).not.toContain('--audit-copy');
  });

  it.each([
    ['lacks a record', () => Promise.all([ship(1, 120), ship(122, 130)]), 'record 121 is missing'],
    ['begins after the backup', () => ship(101, 120), 'record 100 is missing'],
    [
      'has the records of another store that ended',
      () => Promise.all([ship(1, 150), ship(101, 120, { fork: 110 })]),
      'two stores of one installation wrote to it',
    ],
    [
      'has the records of another store that went on',
      () => Promise.all([ship(1, 120), ship(121, 130, { fork: 110 })]),
      'or another store wrote to it',
    ],
  ])('is refused when the archive %s, and the backup stays', async (_what, fill, refusal) => {
    await fill();
    const { code, stderr, to } = await fetched();
    expect([code, readdirSync(to)]).toEqual([8, [`bunkms-${ID}-20260101T000000Z.backup`]]);
    expect(stderr).toContain(refusal);
    expect(stderr).toContain('The backup is complete: ');
  });
});

it('the objects have the documented names', async () => {
  await ship(1, 120, { epoch: 1_767_225_600_000 });
  const names = objectsBelow('.').map((path) => path.slice(archive.length + 1));
  expect(names).toEqual([
    `bunkms/${ID}/backups/20260101T000000Z-0000000000000100-aaaaaaaa/00001-of-00001-${shaOf(BACKUP)}`,
    `bunkms/${ID}/chain/0001767225600000/0000000000000001-0000000000000120-${shaOf(linesOf(1, 120).join(''))}`,
  ]);
});

describe('a machine without a position', () => {
  /** A store with some records, whose first one names the installation. */
  const storeOf = (records: number, fork: number) => ({
    auditHead: async () => ({ seq: records, hash: hashAt(records, fork) }),
    listAudit: async ({ after = 0 }: { after?: number | undefined }) => {
      const hash = after === 0 ? ID.padEnd(64, '0') : hashAt(after + 1, fork);
      return { items: after < records ? [{ ...RECORD, seq: after + 1, hash }] : [], more: false };
    },
  });
  const RECORD = {
    time: '2026-01-01T00:00:00.000Z',
    severity: 'INFO',
    action: 'x',
    outcome: 'allowed',
    prev_hash: '',
  } as const;
  const GENESIS = { seq: 0, hash: '', epoch: 0 };
  const read = (records: number, fork = NEVER) => {
    const file = { read: async () => GENESIS, write: async () => undefined };
    return resumedPosition(file, openArchive(archive, {}), storeOf(records, fork)).read();
  };

  it('continues after the last record in the archive, however far its store is', async () => {
    await ship(1, 500);
    await ship(501, 700);
    for (const records of [700, 701, 1_300, 5_000])
      expect(await read(records)).toEqual({ seq: 700, hash: hashAt(700, NEVER), epoch: 0 });
  });

  it('begins again when its store lacks that record, or has another one, or the archive is empty', async () => {
    expect(await read(800)).toBe(GENESIS);
    await ship(1, 500);
    await ship(501, 700);
    expect(await read(699)).toBe(GENESIS);
    expect(await read(800, 650)).toBe(GENESIS);
  });
});

describe('a damaged object', () => {
  const damage = (path: string) => writeFileSync(path, readFileSync(path).subarray(1));

  it.each([['backups'], ['chain']])('below %s is refused by its name, and makes no file', async (below) => {
    await ship(1, 120);
    const [path = ''] = objectsBelow(below);
    damage(path);
    const { code, stderr, to } = await fetched();
    expect(code).toBe(8);
    expect(stderr).toContain(`the object ${path.slice(archive.length + 1)} is damaged`);
    expect(readdirSync(to)).toHaveLength(below === 'backups' ? 0 : 1);
  });
});

describe('bunkms archive', () => {
  it('fetches the last backup before a time, and the whole chain after it', async () => {
    await addBackup('2026-01-01T01:00:00.000Z', 110);
    await ship(1, 120);
    const { copy, stdout } = await fetched('--at', '2026-01-01T00:59:59Z');
    expect([copy(), stdout.includes('the backup of 2026-01-01T00:00:00.000Z')]).toEqual([
      linesOf(BACKUP_SEQ, 120).join(''),
      true,
    ]);
    expect(await fetched('--at', '2025-12-31T00:00:00Z')).toMatchObject({
      code: 3,
      stderr: expect.stringContaining('the first backup is of 2026-01-01T00:00:00.000Z'),
    });
  });

  it('names a backup with more records than the newest one, whose time may be wrong', async () => {
    await addBackup('2026-01-01T01:00:00.000Z', 90);
    const { stdout, stderr } = await fetched();
    expect(stdout).toContain('the backup of 2026-01-01T01:00:00.000Z');
    expect(stderr).toContain(`the backup of 2026-01-01T00:00:00.000Z has more records, up to ${BACKUP_SEQ}`);
    expect((await fetched('--at', '2026-01-01T00:59:59Z')).stderr).not.toContain('more records');
  });

  it('replaces no file', async () => {
    const { to } = await fetched();
    const { code, stderr } = await bunkms({}, 'archive', 'fetch', '--from', archive, '--to', to);
    expect([code, stderr]).toEqual([5, expect.stringContaining('exists already: name another folder')]);
  });

  it('lists the backups and the last record', async () => {
    await ship(1, 120);
    const { stdout } = await bunkms({ BUNKMS_ARCHIVE: archive }, 'archive', 'list', '--json');
    expect(JSON.parse(stdout)).toEqual({
      archive,
      installation: ID,
      backups: [{ created_at: '2026-01-01T00:00:00.000Z', bytes: BACKUP.length, last_record: BACKUP_SEQ }],
      last_record: 120,
    });
  });

  it('asks which installation is meant when there are several, and refuses one that is not there', async () => {
    await addBackup('2026-01-02T00:00:00.000Z', 5, 'ffffffff');
    expect(await fetched()).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`name one by --installation: ${ID}, ffffffff`),
    });
    expect((await fetched('--installation', 'ffffffff')).stdout).toContain('2026-01-02');
    expect(await fetched('--installation', 'eeeeeeee')).toMatchObject({
      code: 3,
      stderr: expect.stringContaining(`the installation eeeeeeee, but of ${ID}, ffffffff`),
    });
    rmSync(join(archive, 'bunkms'), { recursive: true });
    expect(await fetched()).toMatchObject({
      code: 3,
      stderr: expect.stringContaining('no archive of BunKMS'),
    });
  });

  it('says how to name the archive', async () => {
    const { code, stderr } = await bunkms({}, 'archive', 'list');
    expect([code, stderr]).toEqual([2, expect.stringContaining('--from <folder or s3://bucket/prefix>')]);
  });
});
