import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseSealedRing } from '../src/vault/sealed-ring.ts';
import { bunkms } from './support/command.ts';
import { environment, folder, init, useCommandLine } from './support/command-line.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { bunkmsProcess } from './support/process.ts';
import { TransitServer } from './support/transit-server.ts';

useCommandLine();

let one: TransitServer;
let two: TransitServer;
const outsideKeysFile = () => join(folder, 'outside.json');
const withOutside = () => ({ ...environment, BUNKMS_OUTSIDE_KEYS_FILE: outsideKeysFile() });
const run = (...args: string[]) => bunkms(withOutside(), ...args);
const json = async (...args: string[]) => {
  const { code, stdout, stderr } = await run(...args, '--json');
  expect([args, code, stderr]).toEqual([args, 0, '']);
  return JSON.parse(stdout);
};
const ring = () => readFileSync(environment.BUNKMS_KEK_FILE);
const entries = () => JSON.parse(readFileSync(outsideKeysFile(), 'utf8')).keys;
const writeEntries = (keys: object) => writeFileSync(outsideKeysFile(), JSON.stringify({ keys }));
const findings = async (check: string) => {
  const { stdout } = await run('doctor', '--json');
  const report = JSON.parse(stdout) as { findings: { check: string; found: string; verdict: string }[] };
  const ofCheck = report.findings.filter((finding) => finding.check === check);
  return ofCheck.map(({ verdict, found }) => `${verdict}: ${found}`);
};

beforeEach(async () => {
  [one, two] = [await TransitServer.start(), await TransitServer.start()];
  const keys: Record<string, object> = {};
  for (const [name, server] of Object.entries({ one, two })) {
    server.keys.set('bunkms', randomBytes(32));
    writeFileSync(join(folder, `${name}.token`), server.newToken());
    keys[name] = { kind: 'transit', url: server.url, key: 'bunkms', token_file: `${name}.token` };
  }
  writeEntries(keys);
  expect(await init()).toMatchObject({ code: 0 });
});
afterEach(async () => {
  await one[Symbol.asyncDispose]();
  await two[Symbol.asyncDispose]();
});

describe('a write of the ring', () => {
  it.each([
    ['other bytes than it has wrapped', () => ({ plaintext: randomBytes(32).toString('base64') })],
    ['bytes of another length', () => ({ plaintext: randomBytes(48).toString('base64') })],
  ])('is refused when a slot unwraps %s, and the file stays', async (_what, data) => {
    await json('seal', 'migrate', '--slot', 'one');
    const before = ring();
    two.intercept = (request, response) => {
      request.resume();
      const body = String(request.url).includes('encrypt') ? { ciphertext: 'vault:v1:AAAA' } : data();
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ data: body }));
    };
    for (const args of [
      ['seal', 'add', 'two'],
      ['seal', 'migrate', '--slot', 'two', '--slot', 'one'],
    ]) {
      const { code, stderr } = await run(...args);
      expect([code, stderr]).toEqual([
        6,
        expect.stringMatching(/the slot two does not open what was written .*: nothing was changed/),
      ]);
      expect(ring()).toEqual(before);
    }
    expect(
      readdirSync(dirname(environment.BUNKMS_KEK_FILE)).filter((name) => name.startsWith('kek')),
    ).toEqual(['kek']);
  });

  it('keeps a link in place of the file, and writes where it leads', async () => {
    const elsewhere = join(folder, 'elsewhere');
    renameSync(environment.BUNKMS_KEK_FILE, elsewhere);
    symlinkSync(elsewhere, environment.BUNKMS_KEK_FILE);
    await json('seal', 'migrate', '--slot', 'one');
    expect(lstatSync(environment.BUNKMS_KEK_FILE).isSymbolicLink()).toBe(true);
    // Else the plain ring would still be there.
    expect(parseSealedRing(readFileSync(elsewhere))).toBeDefined();
  });

  it('removes what a killed command has left, which doctor names', async () => {
    const leftover = `${environment.BUNKMS_KEK_FILE}.0123456789ab.tmp`;
    const others = ['.tmp', '.0123456789ab', '.0123456789AB.tmp', '.old.0123456789ab.tmp'];
    for (const path of [leftover, ...others.map((end) => environment.BUNKMS_KEK_FILE + end)])
      writeFileSync(path, ring());
    expect(await findings('kek file')).toEqual([
      `warn: a command that wrote the ring was killed, and left KEKs in ${leftover}`,
    ]);
    await json('seal', 'migrate', '--slot', 'one');
    expect(existsSync(leftover)).toBe(false);
    for (const end of others) expect(existsSync(environment.BUNKMS_KEK_FILE + end)).toBe(true);
    expect(await findings('kek file')).toEqual([]);
  });
});

describe('a sealed ring', () => {
  it('opens for a command by one slot although the package of another one is missing', async () => {
    await json('seal', 'migrate', '--slot', 'one', '--slot', 'two');
    const arn = 'arn:aws:kms:eu-central-1:123456789012:key/1234abcd';
    writeEntries({ ...entries(), one: { kind: 'aws-kms', key_arn: arn } });
    const hook = `import { registerHooks } from 'node:module';
      registerHooks({ resolve: (name, context, next) => next(name.replace('@aws-sdk/', '@absent/'), context) });`;
    const variables = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(hook)}` };
    const { code, stdout, stderr } = await bunkmsProcess({ ...withOutside(), ...variables }, 'kek', 'status');
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain('current: ');
  });

  it('gives up retired KEKs alone, so that it never is full for good', async () => {
    await json('seal', 'migrate', '--slot', 'one');
    const { current, keks } = await json('kek', 'status');
    const former = keks.find(({ id }: { id: string }) => id !== current).id;
    for (const [id, code, message] of [
      [current, 5, 'is current: retire it first'],
      [former, 5, 'is previous: retire it first'],
      ['0123456789abcdef', 3, 'the ring has no KEK'],
    ] as const) {
      const finished = await run('kek', 'remove', id);
      expect([finished.code, finished.stderr]).toEqual([code, expect.stringContaining(message)]);
    }
    for (let more = 0; more < 6; more++) await json('kek', 'add');
    const full = await run('kek', 'add');
    expect([full.code, full.stderr]).toEqual([5, expect.stringContaining('by "bunkms kek remove"')]);
    await json('kek', 'retire', former);
    expect(await json('kek', 'remove', former)).toEqual({ id: former });
    await json('kek', 'add');
    const status = await json('seal', 'status');
    expect(status.keks).toHaveLength(8);
    expect(status.keks).not.toContain(former);
    expect(await json('kek', 'verify')).toMatchObject({ damaged: [] });
  });

  it('is plain for "kek remove" only to say which file has the line', async () => {
    const { current } = await json('kek', 'status');
    const { code, stderr } = await run('kek', 'remove', current);
    expect([code, stderr]).toEqual([5, expect.stringContaining(`delete the line of the KEK in ${folder}`)]);
  });

  it('that waits for its rotation is named by doctor: former ring files open everything until then', async () => {
    const elsewhere = { ...withOutside(), BUNKMS_DATA_DIR: join(folder, 'none') };
    // As after a crash behind the write of the file.
    expect((await bunkms(elsewhere, 'seal', 'migrate', '--slot', 'one', '--json')).code).toBe(0);
    const { keks } = await json('seal', 'status');
    const waits = `warn: no rotation to ${keks[1]} yet: until then, former ring files may open everything`;
    expect(await findings('seal')).toContain(waits);
    const { former } = await json('seal', 'migrate', '--slot', 'one');
    const found = await findings('seal');
    expect(found).not.toContain(waits);
    expect(found).toContain(`warn: former ring files may open what these KEKs wrap: ${former[0]}`);
  });
});

describe('doctor', () => {
  it('checks the file of outside keys, and who may read the credentials that it names', async () => {
    chmodSync(join(folder, 'one.token'), 0o600);
    chmodSync(join(folder, 'two.token'), 0o644);
    expect(await findings('outside keys')).toEqual([
      'ok: 2 entries; "bunkms outside check" asks them, and "bunkms outside status" has the last error of each key',
      `warn: others may read ${join(folder, 'two.token')}, token_file of two (mode 644)`,
    ]);
    writeEntries({ one: { kind: 'transit' } });
    const faults = ['url', 'key', 'token_file'].map((member) =>
      expect.stringMatching(`^fail: .*keys\\.one\\.${member}: `),
    );
    expect(await findings('outside keys')).toEqual(faults);
  });
});

describe('two BunKMS that seal each other', () => {
  it('are named by doctor and by the command, until a slot of another kind or a safe breaks the circle', async () => {
    await using other: TestKms = await startKms();
    const keys = await KeyCalls.of(other);
    await keys.create('ring-a', { exportable: false });
    const { token } = await other.issue({ scope: ['kms:encrypt', 'kms:decrypt'], keys: ['ring-a'] });
    writeFileSync(join(folder, 'other.token'), token);
    const entry = { kind: 'bunkms', url: other.running.apiUrl, key: 'ring-a', token_file: 'other.token' };
    writeEntries({ ...entries(), other: entry });
    const circle =
      'each slot is a key of another BunKMS: if a key of this one seals its ring, neither can start';
    const migrated = await run('seal', 'migrate', '--slot', 'other');
    expect([migrated.code, migrated.stdout]).toEqual([0, expect.stringContaining(circle)]);
    expect(await findings('seal')).toContainEqual(expect.stringContaining(`warn: ${circle}`));
    const added = await run('seal', 'add', 'one');
    expect([added.code, added.stdout]).toEqual([0, expect.not.stringContaining(circle)]);
    expect(await findings('seal')).not.toContainEqual(expect.stringContaining(circle));
    // Its entry is in a safe now: offline.
    const { one: _offline, ...kept } = entries();
    writeEntries(kept);
    expect(await findings('seal')).not.toContainEqual(expect.stringContaining(circle));
  });
});
