import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type * as PrivateFiles from '@bundoc/shared/files/private-file';
import type { Finished } from '@bundoc/shared/testing/captured-run';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { bunkms } from './support/command.ts';
import { environment, expectFailure, folder, init, run, useCommandLine } from './support/command-line.ts';
import { TransitServer } from './support/transit-server.ts';

/** Private files that may still be written. */
const disk = vi.hoisted(() => ({ left: Number.POSITIVE_INFINITY }));
vi.mock('@bundoc/shared/files/private-file', async (original) => {
  const files = await original<typeof PrivateFiles>();
  const createPrivateFile: typeof files.createPrivateFile = async (path, content) => {
    if (disk.left-- <= 0) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
    return await files.createPrivateFile(path, content);
  };
  return { ...files, createPrivateFile };
});

useCommandLine();
beforeEach(async () => {
  expect(await init()).toMatchObject({ code: 0 });
});
afterEach(() => {
  disk.left = Number.POSITIVE_INFINITY;
});

const at = (...path: string[]) => join(folder, ...path);
const ring = () => readFileSync(environment.BUNKMS_KEK_FILE);
const okOf = ({ code, stdout, stderr }: Finished) => {
  expect([code, stderr]).toEqual([0, '']);
  return stdout;
};
const json = async (...args: string[]) => JSON.parse(okOf(await run(...args, '--json')));
const split = (shares: number, threshold: number, to: string) =>
  json('kek', 'split', '--shares', String(shares), '--threshold', String(threshold), '--to', at(to));
/** Without any setting, store or ring. */
const combine = (...args: string[]) => bunkms({}, 'kek', 'combine', ...args);
const recordsOfSplits = async () =>
  (await json('audit', 'list', '--limit', '1000')).records.filter(
    ({ action }: { action: string }) => action === 'kek.split',
  );
const kekIds = async () => (await json('kek', 'list')).keks.map(({ id }: { id: string }) => id) as string[];

describe('bunkms kek split and combine', () => {
  it('give the KEK file back, byte for byte, from any three of five files, without a store or settings', async () => {
    await json('kek', 'add');
    const done = await split(5, 3, 'safe');
    const { current } = await json('kek', 'status');
    expect(done).toMatchObject({ shares: 5, threshold: 3, current, keks: await kekIds() });
    expect(done.files).toHaveLength(5);
    expect(readdirSync(at('safe')).map((name) => at('safe', name))).toEqual(done.files);
    for (const file of done.files) {
      expect(statSync(file).mode & 0o777).toBe(0o600);
      expect(readFileSync(file, 'utf8')).toContain(`# Split ${done.split}, 2 KEKs; current: ${current}\n`);
    }
    const before = ring();
    for (const path of [environment.BUNKMS_DATA_DIR, environment.BUNKMS_KEK_FILE])
      rmSync(path, { recursive: true });
    const [one, two, three, four, five] = done.files as [string, string, string, string, string];
    for (const [name, files] of Object.entries({
      a: [five, one, three],
      b: [two, three, four],
      c: done.files,
    })) {
      const made = JSON.parse(okOf(await combine(...files, '--to', at('new', name), '--json')));
      expect(made).toEqual({ file: at('new', name), split: done.split, keks: done.keks, current });
      expect(readFileSync(at('new', name))).toEqual(before);
      expect(statSync(at('new', name)).mode & 0o777).toBe(0o600);
    }
  });

  it('say what to do next, and show no secret', async () => {
    const args = ['kek', 'split', '--shares', '3', '--threshold', '2', '--to', at('safe')];
    const shown = okOf(await run(...args));
    const [id] = await kekIds();
    expect(shown).toMatch(/kek-share-[0-9a-f]{16}-1-of-3\.txt\n/);
    expect(shown).toContain(`each has a share of 1 KEK: ${id}; current: ${id}\n`);
    expect(shown).toContain(
      'any 2 of them give the KEKs: give each to another keeper, then delete the files',
    );
    const files = readdirSync(at('safe')).map((name) => at('safe', name));
    const made = okOf(await combine(...files, '--to', at('kek')));
    expect(made).toBe(
      `${at('kek')} has 1 KEK: ${id}; current at the split: ${id}\nuse it as BUNKMS_KEK_FILE, such as for "bunkms restore <backup>"\n`,
    );
    const everything = `${shown}${made}${JSON.stringify(await recordsOfSplits())}`;
    for (const secret of [ring().toString().trim(), ...files.map((file) => readFileSync(file, 'utf8'))])
      for (const line of secret.split('\n'))
        if (/^\S{44}|^\d\d /.test(line)) expect(everything).not.toContain(line);
  });

  it('record a split as CRITICAL, with the KEKs inside and no secret', async () => {
    const { split: id, keks } = await split(4, 2, 'safe');
    expect(await recordsOfSplits()).toMatchObject([
      {
        severity: 'CRITICAL',
        outcome: 'allowed',
        actor: 'cli',
        detail: { split: id, shares: 4, threshold: 2, kek_ids: keks.join(' ') },
      },
    ]);
  });

  it('leave no share, but a record and what others have in the folder, when the disk is full in the middle', async () => {
    mkdirSync(at('safe'));
    writeFileSync(at('safe', 'of-others.txt'), 'x');
    disk.left = 2;
    const refused = await run('kek', 'split', '--shares', '3', '--threshold', '2', '--to', at('safe'));
    expectFailure(refused, 1, /no space left on device/);
    expect(readdirSync(at('safe'))).toEqual(['of-others.txt']);
    expect(await recordsOfSplits()).toMatchObject([
      { outcome: 'allowed', severity: 'CRITICAL' },
      { outcome: 'failed', severity: 'CRITICAL' },
    ]);
    writeFileSync(at('file'), '');
    const below = await run('kek', 'split', '--shares', '3', '--threshold', '2', '--to', at('file'));
    expectFailure(below, 2, /--to names a folder, and \S+file is a file/);
    expect(await recordsOfSplits()).toHaveLength(2);
  });

  it('take a sealed ring through a slot, and the KEK of BUNKMS_KEK', async () => {
    await using bao = await TransitServer.start();
    bao.keys.set('bunkms', randomBytes(32));
    writeFileSync(at('token'), bao.newToken());
    const entry = { kind: 'transit', url: bao.url, key: 'bunkms', token_file: 'token' };
    writeFileSync(at('outside.json'), JSON.stringify({ keys: { bao: entry } }));
    const kek = ring().toString().trim();
    const splitWith = async (settings: Record<string, string>, to: string) => {
      const args = ['kek', 'split', '--shares', '2', '--threshold', '2', '--to', at(to), '--json'];
      const { files, keks } = JSON.parse(okOf(await bunkms(settings, ...args)));
      const made = JSON.parse(okOf(await combine(...files, '--to', at(`${to}-kek`), '--json')));
      expect(made.keks).toEqual(keks);
      return readFileSync(at(`${to}-kek`), 'utf8');
    };
    const inline = { BUNKMS_DATA_DIR: environment.BUNKMS_DATA_DIR, BUNKMS_KEK: kek };
    expect(await splitWith(inline, 'inline')).toBe(`${kek}\n`);
    const sealed = { ...environment, BUNKMS_OUTSIDE_KEYS_FILE: at('outside.json') };
    okOf(await bunkms(sealed, 'seal', 'migrate', '--slot', 'bao'));
    const text = await splitWith(sealed, 'sealed');
    expect(text).toMatch(/^(.{44}\n){2}$/);
    expect(text.startsWith(kek)).toBe(true);
    bao.intercept = (_request, response) => response.destroy();
    const args = ['kek', 'split', '--shares', '2', '--threshold', '2', '--to', at('away')];
    expectFailure(await bunkms(sealed, ...args), 1, /no slot opens the sealed ring: bao is unavailable/);
  });

  it('refuse numbers of shares that make no sense', async () => {
    for (const [shares, threshold, message] of [
      ['3', '4', /--threshold may be 3 at most, the number of shares/],
      ['1', '1', /--shares <count>.*a whole number from 2 to 16/],
      ['17', '2', /--shares <count>.*a whole number from 2 to 16/],
      ['3', '1', /--threshold <count>.*a whole number from 2 to 16/],
    ] as const) {
      const args = ['kek', 'split', '--shares', shares, '--threshold', threshold, '--to', at('safe')];
      const { code, stderr } = await run(...args);
      expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
    }
    expect(await recordsOfSplits()).toEqual([]);
  });
});

describe('bunkms kek combine', () => {
  let files: string[];
  beforeEach(async () => {
    ({ files } = await split(5, 3, 'safe'));
  });
  const refused = async (code: number, message: RegExp, ...given: (string | undefined)[]) => {
    expectFailure(await combine(...given.map(String), '--to', at('kek')), code, message);
    expect(readdirSync(folder)).not.toContain('kek');
  };
  /** Writes a copy of a share with changes. */
  const changed = (name: string, change: (text: string) => string, share = 0) => {
    writeFileSync(at(name), change(readFileSync(String(files[share]), 'utf8')));
    return at(name);
  };

  it('says how many shares are lacking, and names those that do not belong together', async () => {
    await refused(2, /: give 1 more: 3 of the 5 shares are needed$/, files[0], files[1]);
    await refused(2, /: give 2 more: 3 of the 5 shares are needed$/, files[4]);
    const { files: others } = await split(5, 3, 'other');
    await refused(
      2,
      /other.*-1-of-5\.txt is of another split than .*safe.*: split /,
      files[1],
      others[0],
      files[2],
    );
    const copy = changed('copy', (text) => text);
    await refused(2, /copy is the same share as .*-1-of-5\.txt$/, files[0], files[1], copy);
  });

  it('names the file and the line of a damaged or mistyped share', async () => {
    const typo = changed('typo', (text) =>
      text.replace(/^(03 {2})(.)/m, (_, number, one) => `${number}${one === 'A' ? 'B' : 'A'}`),
    );
    const line =
      /typo, line 9: the line 03 of the share is damaged or mistyped, .*; correct it by its paper, or/;
    await refused(8, line, typo, files[1], files[2]);
    const cut = changed('cut', (text) => text.slice(0, 500));
    await refused(8, /cut(, line \d+)?: .* of the share/, cut, files[1], files[2]);
    writeFileSync(at('backup'), randomBytes(100).toString('hex'));
    await refused(8, /backup, line 1: a KEK share begins with "BUNKMS KEK SHARE 1"/, at('backup'));
    writeFileSync(at('long'), '#'.repeat(20_000));
    await refused(2, /long is longer than any KEK share/, at('long'));
    await refused(2, /there is no file at .*nothing/, at('nothing'));
    await refused(2, /safe is a folder/, at('safe'));
  });

  it('reads shares that were typed in lower case and ended by CRLF', async () => {
    const typed = changed('typed', (text) =>
      text
        .toLowerCase()
        .replace(/^#.*\n/gm, '')
        .replaceAll('\n', '\r\n'),
    );
    okOf(await combine(typed, String(files[1]), String(files[2]), '--to', at('kek')));
    expect(readFileSync(at('kek'))).toEqual(ring());
  });

  it('never overwrites a file', async () => {
    writeFileSync(at('taken'), 'mine');
    const given = files.slice(0, 3);
    expectFailure(await combine(...given, '--to', at('taken')), 5, /taken exists already: name another one/);
    expect(readFileSync(at('taken'), 'utf8')).toBe('mine');
  });
});

describe('bunkms doctor', () => {
  const finding = async () => {
    const { stdout } = await run('doctor', '--json');
    const { findings } = JSON.parse(stdout) as {
      findings: { check: string; verdict: string; found: string; remedy?: string }[];
    };
    const of = findings.filter(({ check }) => check === 'kek shares');
    return of.map(({ verdict, found, remedy }) => `${verdict}: ${found}. ${remedy ?? ''}`);
  };

  it('warns of shares that are older than a rotation of the KEK, until the ring is split again', async () => {
    expect(await finding()).toEqual([]);
    const first = await split(3, 2, 'first');
    const sound =
      /^ok: the newest shares of the KEKs, split [0-9a-f]{16} of \d{4}-\d\d-\d\d, have every KEK in use/;
    expect(await finding()).toEqual([expect.stringMatching(sound)]);
    // A staged KEK has wrapped nothing yet.
    const { id } = await json('kek', 'add');
    await json('kek', 'status');
    expect(await finding()).toEqual([expect.stringMatching(sound)]);
    await json('kek', 'rotate');
    const late = `warn: the newest shares of the KEKs, split ${first.split} of`;
    const lacking = `are older than a rotation: they lack ${id}. run "bunkms kek split" again`;
    const warning = [expect.stringMatching(new RegExp(`^${late} .*${lacking}`))];
    expect(await finding()).toEqual(warning);
    disk.left = 1;
    const args = ['kek', 'split', '--shares', '3', '--threshold', '2', '--to', at('failed')];
    expect(await run(...args)).toMatchObject({ code: 1 });
    disk.left = Number.POSITIVE_INFINITY;
    expect(await finding()).toEqual(warning);
    const second = await split(3, 2, 'second');
    expect(await finding()).toEqual([
      expect.stringContaining(`ok: the newest shares of the KEKs, split ${second.split}`),
    ]);
    // The newest shares have the former KEK as well.
    await json('kek', 'rotate', String(first.current));
    expect(await finding()).toEqual([expect.stringMatching(sound)]);
  });
});
