import { randomBytes } from 'node:crypto';
import { copyFileSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseSealedRing } from '../src/vault/sealed-ring.ts';
import { bunkms } from './support/command.ts';
import { environment, folder, init, useCommandLine } from './support/command-line.ts';
import { TransitServer } from './support/transit-server.ts';

useCommandLine();

let one: TransitServer;
let two: TransitServer;
const outsideKeysFile = () => join(folder, 'outside.json');
const run = (...args: string[]) =>
  bunkms({ ...environment, BUNKMS_OUTSIDE_KEYS_FILE: outsideKeysFile() }, ...args);
const json = async (...args: string[]) => {
  const { code, stdout, stderr } = await run(...args, '--json');
  expect([code, stderr]).toEqual([0, '']);
  return JSON.parse(stdout);
};
const ring = () => readFileSync(environment.BUNKMS_KEK_FILE);
const slotsOf = (bytes: Buffer) => parseSealedRing(bytes)?.slots.map(({ name }) => name);

beforeEach(async () => {
  [one, two] = [await TransitServer.start(), await TransitServer.start()];
  const entries: Record<string, object> = {};
  for (const [name, server] of Object.entries({ one, two })) {
    server.keys.set('bunkms', randomBytes(32));
    writeFileSync(join(folder, `${name}.token`), server.newToken(), { mode: 0o600 });
    entries[name] = { kind: 'transit', url: server.url, key: 'bunkms', token_file: `${name}.token` };
  }
  writeFileSync(outsideKeysFile(), JSON.stringify({ keys: entries }));
  expect(await init()).toMatchObject({ code: 0 });
});
afterEach(async () => {
  await one[Symbol.asyncDispose]();
  await two[Symbol.asyncDispose]();
});

describe('bunkms outside', () => {
  it('lists the entries without asking a provider, and checks that each wraps and unwraps', async () => {
    expect((await json('outside', 'list')).keys).toEqual([
      { name: 'one', kind: 'transit', place: `${one.url} transit/bunkms` },
      { name: 'two', kind: 'transit', place: `${two.url} transit/bunkms` },
    ]);
    expect(one.asked).toEqual([]);
    expect((await json('outside', 'check')).keys).toMatchObject([
      { name: 'one', works: true, latency_ms: expect.any(Number) },
      { name: 'two', works: true },
    ]);
  });

  it('names the cause and a remedy of each key that fails, with exit code 1', async () => {
    for (const token of two.tokens.values()) token.mayUse = false;
    one.intercept = (_request, response) => response.destroy();
    const { code, stdout } = await run('outside', 'check');
    expect(code).toBe(1);
    const [first, second] = stdout.trim().split('\n');
    expect(first).toMatch(
      /^one: unavailable: no answer of http:\/\/127\.0\.0\.1:\d+: .*; see that the service runs/,
    );
    expect(second).toMatch(
      /^two: denied: it answered 403: .*permission denied.*; let the policy of the token/,
    );
    const mistyped = await run('outside', 'check', 'onne');
    expect([mistyped.code, mistyped.stderr.trim()]).toEqual([
      3,
      'bunkms: no entry has the name onne (did you mean one?)',
    ]);
  });

  it('refuses a file with every fault by its member, and quotes no value', async () => {
    const secret = 'hvs.a-token-where-a-path-belongs';
    writeFileSync(
      outsideKeysFile(),
      JSON.stringify({
        keys: {
          far: { kind: 'transit', url: 'http://bao.example:8200', key: 'k', token_file: secret },
          up: { kind: 'transit', url: one.url, mount: '../sys', key: 'k', tokenfile: secret },
          other: { kind: 'hsm' },
          Upper: {},
        },
      }),
    );
    const { code, stderr } = await run('outside', 'list');
    expect(code).toBe(2);
    for (const fault of [
      'keys.far.url: must be https, or name this machine',
      'keys.up.mount: must be a path',
      'keys.up.token_file: is required',
      'keys.up: tokenfile: unknown (did you mean token_file?)',
      'keys.other.kind: must be one of "transit", "bunkms", "aws-kms"',
    ])
      expect(stderr).toContain(fault.replace(': unknown (did you mean token_file?)', ''));
    expect(stderr).not.toContain(secret);
  });
});

describe('bunkms seal', () => {
  it('migrates a plain ring to two slots under a new KEK, and back', async () => {
    const former = await json('kek', 'status');
    const plain = ring();
    const sealed = await json('seal', 'migrate', '--slot', 'one', '--slot', 'two');
    expect(sealed).toMatchObject({ sealed: true, slots: ['one', 'two'], former: [former.current] });
    expect(sealed.current).not.toBe(former.current);
    expect(slotsOf(ring())).toEqual(['one', 'two']);
    expect(ring().includes(plain.subarray(0, 44))).toBe(false);
    expect(statSync(environment.BUNKMS_KEK_FILE).mode & 0o777).toBe(0o600);
    expect(await json('kek', 'verify')).toMatchObject({ under_others: 0, damaged: [] });
    expect(await json('seal', 'status')).toMatchObject({
      sealed: true,
      slots: [
        { name: 'one', state: 'opens' },
        { name: 'two', state: 'opens' },
      ],
    });
    expect(await json('kek', 'retire', former.current)).toMatchObject({ state: 'retired' });
    expect(await json('seal', 'migrate', '--slot', 'two', '--slot', 'one')).toMatchObject({
      current: sealed.current,
      former: [],
    });
    expect(await json('seal', 'migrate', '--to', 'file')).toEqual({ sealed: false, slots: [] });
    expect(parseSealedRing(ring())).toBeUndefined();
    expect(await json('kek', 'status')).toMatchObject({ current: sealed.current });
  });

  it('goes on with a migration that ended before its rotation', async () => {
    const { current } = await json('kek', 'status');
    // Without a store there is no rotation yet: as after a crash behind the write of the file.
    const elsewhere = { ...environment, BUNKMS_DATA_DIR: join(folder, 'none') };
    const { code } = await bunkms(
      { ...elsewhere, BUNKMS_OUTSIDE_KEYS_FILE: outsideKeysFile() },
      ...['seal', 'migrate', '--slot', 'one'],
    );
    expect(code).toBe(0);
    expect((await json('kek', 'status')).current).toBe(current);
    const written = ring();
    const migrated = await json('seal', 'migrate', '--slot', 'one');
    expect(migrated.current).not.toBe(current);
    expect(ring()).toEqual(written);
  });

  it('opens by either slot, adds a slot and removes one with a rotation', async () => {
    await json('seal', 'migrate', '--slot', 'one');
    const { current } = await json('kek', 'status');
    expect(await json('seal', 'add', 'two')).toEqual({ sealed: true, slots: ['one', 'two'] });
    expect((await json('kek', 'status')).current).toBe(current);
    one.intercept = (_request, response) => response.destroy();
    expect(await json('kek', 'status')).toMatchObject({ current });
    // A write needs all of them.
    const refused = await run('seal', 'remove', 'two');
    expect(refused.code).toBe(6);
    expect(refused.stderr).toMatch(/one is unavailable \(.*\): each write of the ring needs the keys of all/);
    one.intercept = undefined;
    const removed = await json('seal', 'remove', 'two');
    expect(removed.slots).toEqual(['one']);
    expect(removed.current).not.toBe(current);
    expect(removed.former).toContain(current);
    const last = await run('seal', 'remove', 'one');
    expect([last.code, last.stderr]).toEqual([5, expect.stringContaining('it is the only slot')]);
  });

  it('opens no installation with a former ring file, and says until when that opens what was wrapped before', async () => {
    await json('seal', 'migrate', '--slot', 'one');
    const copy = join(folder, 'copy');
    copyFileSync(environment.BUNKMS_KEK_FILE, copy);
    const { former, current } = await json('seal', 'migrate', '--slot', 'two');
    const opened = await bunkms(
      { ...environment, BUNKMS_KEK_FILE: copy, BUNKMS_OUTSIDE_KEYS_FILE: outsideKeysFile() },
      ...['kek', 'status', '--json'],
    );
    // Not the current KEK, so it opens no installation any more.
    expect(opened.code).not.toBe(0);
    expect(opened.stderr).toContain(current);
    expect(former).toHaveLength(2);
  });

  it('changes nothing when a slot does not open what was written, or the ring has changed meanwhile', async () => {
    const before = ring();
    let calls = 0;
    one.intercept = (request, response) => {
      // Wraps, and does not unwrap.
      one.intercept = calls++ === 0 ? one.intercept : undefined;
      request.resume();
      const isWrap = String(request.url).includes('encrypt');
      response.writeHead(isWrap ? 200 : 400, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ data: { ciphertext: 'vault:v1:AAAA' }, errors: ['invalid ciphertext'] }));
    };
    const refused = await run('seal', 'migrate', '--slot', 'one');
    expect([refused.code, refused.stderr]).toEqual([
      6,
      expect.stringMatching(/the slot one does not open what was written .*nothing was changed/),
    ]);
    expect(ring()).toEqual(before);
  });

  it('doctor warns of a single slot, and of former KEKs until they are retired', async () => {
    const findings = async () => {
      const { stdout } = await run('doctor', '--json');
      const report = JSON.parse(stdout) as { findings: { check: string; found: string; verdict: string }[] };
      const ofSeal = report.findings.filter(({ check }) => check === 'seal');
      return ofSeal.map(({ verdict, found }) => `${verdict}: ${found}`);
    };
    expect(await findings()).toEqual([]);
    const { former } = await json('seal', 'migrate', '--slot', 'one');
    expect(await findings()).toEqual([
      'warn: the ring is sealed by one alone: without that key, everything is lost',
      `warn: former ring files may open what these KEKs wrap: ${former[0]}`,
    ]);
    await json('seal', 'add', 'two');
    await json('kek', 'retire', former[0]);
    expect(await findings()).toEqual(['ok: the ring is sealed by one, two']);
  });

  it('adds a KEK to a plain ring beside its comments, and to a sealed one', async () => {
    writeFileSync(environment.BUNKMS_KEK_FILE, `# of the safe\n${ring().toString().trim()}`);
    const { id } = await json('kek', 'add');
    expect(ring().toString()).toMatch(/^# of the safe\n.{44}\n.{44}\n$/);
    expect((await json('kek', 'list')).keks).toContainEqual(expect.objectContaining({ id, state: 'staged' }));
    await json('seal', 'migrate', '--slot', 'one');
    const added = await json('kek', 'add');
    expect((await json('seal', 'status')).keks).toContain(added.id);
    expect(slotsOf(ring())).toEqual(['one']);
  });

  it('says what it needs: a slot or --to file, a ring in a file, a known entry, a sealed ring', async () => {
    for (const [args, code, message] of [
      [['seal', 'migrate'], 2, 'give --slot <name>, or --to file'],
      [['seal', 'migrate', '--to', 'cloud'], 2, '--to knows "file" only'],
      [['seal', 'migrate', '--slot', 'three'], 3, 'three has no entry in BUNKMS_OUTSIDE_KEYS_FILE'],
      [['seal', 'add', 'two'], 5, 'the ring is plain: seal it with'],
    ] as const) {
      const finished = await run(...args);
      expect([finished.code, finished.stderr]).toEqual([code, expect.stringContaining(message)]);
    }
    const inline = { BUNKMS_DATA_DIR: environment.BUNKMS_DATA_DIR, BUNKMS_KEK: ring().toString().trim() };
    expect(await bunkms(inline, 'seal', 'status')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('this needs BUNKMS_KEK_FILE'),
    });
  });
});
