import { randomBytes, randomInt } from 'node:crypto';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LONG, runs } from '@bundoc/shared/testing/long';
import { runNode } from '@bundoc/shared/testing/node-process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseSealedRing } from '../src/vault/sealed-ring.ts';
import { bunkms } from './support/command.ts';
import { startKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { PATIENT } from './support/process.ts';
import { TransitServer } from './support/transit-server.ts';

const FAULTS = fileURLToPath(new URL('./support/faults-at.ts', import.meta.url));
const MAIN = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url));
const NAMES = ['a-dek', 'b-dek', 'c-dek'];
/** What a write of the ring does with files, in this order. */
const STEPS = ['open', 'write', 'sync', 'chmod', 'rename', 'open', 'sync'] as const;
/** The first step after which the new ring is there. */
const PUBLISHED = STEPS.indexOf('rename') + 1;
const ERRORS = ['ENOSPC', 'EIO', 'EROFS', 'EACCES'];

/** A command that writes the ring, and which ring it starts from: its slots. */
const COMMANDS = [
  { args: ['seal', 'migrate', '--slot', 'one', '--slot', 'two'], from: [], to: ['one', 'two'] },
  { args: ['seal', 'add', 'two'], from: ['one'], to: ['one', 'two'] },
  { args: ['seal', 'remove', 'two'], from: ['one', 'two'], to: ['one'] },
  { args: ['seal', 'migrate', '--to', 'file'], from: ['one', 'two'], to: [] },
  { args: ['kek', 'add'], from: [], to: [] },
  { args: ['kek', 'add'], from: ['one'], to: ['one'] },
] as const;
type Command = (typeof COMMANDS)[number];

const titleOf = ({ args, from }: Command) =>
  `bunkms ${args.join(' ')} (from slots: ${from.join(', ') || 'none'})`;

describe('a command that writes the ring, and is killed or cannot write', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bunkms-seal-crash-'));
  const servers = new Map<string, TransitServer>();
  let deks: string[];
  let made = 0;

  const at = (name: string) => ({
    BUNKMS_DATA_DIR: join(folder, name, 'kms'),
    BUNKMS_KEK_FILE: join(folder, name, 'secrets', 'kek'),
    BUNKMS_OUTSIDE_KEYS_FILE: join(folder, 'outside.json'),
  });
  const ring = (name: string) => readFileSync(at(name).BUNKMS_KEK_FILE);
  const slotsOf = (bytes: Buffer) => parseSealedRing(bytes)?.slots.map((slot) => slot.name) ?? [];
  const leftovers = (name: string) =>
    readdirSync(join(folder, name, 'secrets')).filter((file) => file.startsWith('kek.'));
  const done = async (name: string, ...args: readonly string[]) => {
    const { code, stdout, stderr } = await bunkms(at(name), ...args, '--json');
    expect([args, code, stderr]).toEqual([args, 0, '']);
    return JSON.parse(stdout);
  };
  const copyOf = (origin: string) => {
    made += 1;
    cpSync(join(folder, origin), join(folder, `case-${made}`), { recursive: true });
    return `case-${made}`;
  };
  const originOf = ({ from }: Command) => ['plain', ...from].join('-');

  /** Every version of every key, as a service that starts now exports it. */
  async function exported(name: string): Promise<string[]> {
    const { BUNKMS_DATA_DIR: dataDir, BUNKMS_KEK_FILE: path, BUNKMS_OUTSIDE_KEYS_FILE } = at(name);
    const config = { kek: { kind: 'file', path }, outsideKeysFile: BUNKMS_OUTSIDE_KEYS_FILE } as const;
    await using kms = await startKms({ dataDir, kek: '', config });
    expect((await kms.api('/ready')).json()).toMatchObject({ status: 'ready' });
    const { stdout } = await bunkms(
      at(name),
      ...['token', 'issue', '--typ', 'service', '--sub', 'x', '--scope', 'kms:export_key', '--keys', '*'],
    );
    const token = stdout.trim();
    return await Promise.all(
      NAMES.map(async (key) => (await kms.internal(`/v1/export/${key}`, { token })).json().key_material_b64),
    );
  }

  /** Runs a command in a process of its own, with a fault at one step. @returns its steps too. */
  async function run(name: string, args: readonly string[], fault: string) {
    const trace = join(folder, `${name}.trace`);
    writeFileSync(trace, '');
    const finished = await runNode([`--import=${FAULTS}`, MAIN, ...args], {
      ...PATIENT,
      ...at(name),
      FAULT_AT: fault,
      FAULT_TRACE: trace,
      FAULT_FOLDER: join(folder, name, 'secrets'),
    });
    return { ...finished, steps: readFileSync(trace, 'utf8').trim().split('\n') };
  }

  /** Whatever has happened: the ring is one of two, all keys open, and the same command finishes. */
  async function expectWhole(name: string, command: Command, before: Buffer): Promise<void> {
    const now = ring(name);
    if (!now.equals(before)) expect(slotsOf(now)).toEqual(command.to);
    const { stdout } = await bunkms(at(name), 'kek', 'verify', '--json');
    expect(JSON.parse(stdout)).toMatchObject({ checked: NAMES.length, damaged: [] });
    expect(await exported(name)).toEqual(deks);
    await done(name, ...command.args);
    expect(slotsOf(ring(name))).toEqual(command.to);
    expect(await done(name, 'kek', 'verify')).toMatchObject({ under_others: 0, damaged: [] });
    expect(await exported(name)).toEqual(deks);
  }

  beforeAll(async () => {
    const keys: Record<string, object> = {};
    for (const name of ['one', 'two']) {
      const server = await TransitServer.start();
      servers.set(name, server);
      server.keys.set('bunkms', randomBytes(32));
      writeFileSync(join(folder, `${name}.token`), server.newToken());
      keys[name] = { kind: 'transit', url: server.url, key: 'bunkms', token_file: `${name}.token` };
    }
    writeFileSync(join(folder, 'outside.json'), JSON.stringify({ keys }));
    const { code } = await bunkms(at('plain'), 'init', '--create-kek');
    expect(code).toBe(0);
    {
      const kek = ring('plain').toString().trim();
      await using kms = await startKms({ dataDir: at('plain').BUNKMS_DATA_DIR, kek });
      const calls = await KeyCalls.of(kms);
      for (const name of NAMES) expect((await calls.create(name)).status).toBe(201);
    }
    deks = await exported('plain');
    for (const [from, to, args] of [
      ['plain', 'plain-one', ['seal', 'migrate', '--slot', 'one']],
      ['plain-one', 'plain-one-two', ['seal', 'add', 'two']],
    ] as const) {
      cpSync(join(folder, from), join(folder, to), { recursive: true });
      await done(to, ...args);
    }
  });
  afterAll(async () => {
    for (const server of servers.values()) await server[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  it('writes, syncs and renames a file, and syncs the folder, before it asks the store to rotate', async () => {
    const command = COMMANDS[0];
    const name = copyOf(originOf(command));
    const { code, steps } = await run(name, command.args, '');
    expect(code).toBe(0);
    expect(steps.filter((step) => step !== 'store')).toEqual(STEPS);
    expect(steps.slice(0, STEPS.length)).toEqual(STEPS);
    expect(steps.length).toBeGreaterThan(STEPS.length + 5);
  });

  /** All steps in the long form; else one by chance, which the name of its test has. */
  const chosen = <T>(all: readonly T[]): readonly T[] => (LONG ? all : [all[randomInt(all.length)] as T]);
  const kills = STEPS.flatMap((_, index) => ['before', 'torn', 'after'].map((how) => `${index + 1}:${how}`));
  const errors = STEPS.flatMap((_, index) => ERRORS.map((code) => `${index + 1}:${code}`));

  it.concurrent.each(
    COMMANDS.flatMap((command) => chosen(kills).map((fault) => [titleOf(command), fault, command] as const)),
  )('by kill -9: %s, step %s', async (_title, fault, command) => {
    const name = copyOf(originOf(command));
    const before = ring(name);
    const { code } = await run(name, command.args, fault);
    expect(code).toBe(null);
    const [step = 0, how] = fault.split(':').map((part) => (/^\d+$/.test(part) ? Number(part) : part));
    const isNew = Number(step) > PUBLISHED || (Number(step) === PUBLISHED && how !== 'before');
    expect(ring(name).equals(before)).toBe(!isNew);
    // Doctor sees what the command has left behind, and the next one removes it.
    const isLeft = leftovers(name).length > 0;
    if (isLeft) {
      const { stdout } = await bunkms(at(name), 'doctor', '--json');
      expect(stdout).toContain(`left KEKs in ${join(folder, name, 'secrets', 'kek.')}`);
    }
    await expectWhole(name, command, before);
    expect(leftovers(name)).toEqual([]);
  });

  it.concurrent.each(
    COMMANDS.flatMap((command) => chosen(errors).map((fault) => [titleOf(command), fault, command] as const)),
  )('by an error of the disk: %s, step %s', async (_title, fault, command) => {
    const name = copyOf(originOf(command));
    const before = ring(name);
    const { code, stderr } = await run(name, command.args, fault);
    const [step, error = ''] = fault.split(':');
    expect([code, stderr.trim().split('\n')]).toEqual([1, [expect.stringContaining(error)]]);
    expect(ring(name).equals(before)).toBe(Number(step) <= PUBLISHED);
    expect(leftovers(name)).toEqual([]);
    await expectWhole(name, command, before);
  });

  // The claim of the killed process delays the next one by 15 s.
  const rotating = LONG ? [0, 2] : [0];
  it.concurrent.each(
    rotating.flatMap((index) => Array.from({ length: runs(1, 8) }, () => [index, Math.random()] as const)),
  )(
    'by kill -9 while it rotates: command %i, at the part %f of its calls of the store',
    async (index, part) => {
      const command = COMMANDS[index] as Command;
      const name = copyOf(originOf(command));
      const before = ring(name);
      const { steps } = await run(copyOf(originOf(command)), command.args, '');
      const step = STEPS.length + 1 + Math.floor(part * (steps.length - STEPS.length));
      const { code } = await run(name, command.args, `${step}:before`);
      // It may have had fewer calls this time, and ended.
      expect([null, 0]).toContain(code);
      expect(slotsOf(ring(name))).toEqual(command.to);
      await expectWhole(name, command, before);
    },
  );
});
