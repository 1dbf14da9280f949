import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runBunkms } from '@bundoc/bunkms/cli/program';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { capturedRun, type Finished } from '@bundoc/shared/testing/captured-run';
import { runs } from '@bundoc/shared/testing/long';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type ConfiguredService, startConfigured } from '../packages/bunkms/test/support/in-process.ts';
import { PATIENT } from '../packages/bunkms/test/support/process.ts';
import { bundocCommand } from './support/bundoc-command.ts';
import { type ConfiguredBundoc, startConfiguredBundoc } from './support/bundoc-process.ts';
import { call, PATIENT_BUNDOC } from './support/installation.ts';
import { newStorage, type StoredProjects } from './support/stored-projects.ts';

/** What is kept elsewhere when the machine is lost. */
let safe: string;
let machine: Machine;
const KEK = randomBytes(32).toString('hex');
const SECOND_DOCUMENT = '{"price": 1.10, "large":12345678901234567890,  "name":"é"}';
const AT_ONCE = 8;
/** A bound for what hangs: 1,000 projects took 13 minutes on a machine of two cores with a load of 25. */
const WITHIN_MS = runs(400_000, 3_600_000);

beforeEach(async () => {
  safe = mkdtempSync(join(tmpdir(), 'bundoc-safe-'));
  machine = await Machine.make();
});
afterEach(async () => {
  await machine.lose();
  rmSync(safe, { recursive: true, force: true });
});

/** Both services on one machine, with the commands of their operator. */
class Machine {
  readonly folder = mkdtempSync(join(tmpdir(), 'bundoc-machine-'));
  readonly #tokenFile = join(this.folder, 'kms-token');
  readonly #stored: StoredProjects;
  #kms: ConfiguredService | undefined;
  #bundoc: ConfiguredBundoc | undefined;

  private constructor(stored: StoredProjects) {
    this.#stored = stored;
  }

  /** Its storage is empty: a folder, or a database. */
  static async make(): Promise<Machine> {
    const data = mkdtempSync(join(tmpdir(), 'bundoc-machine-data-'));
    const machine = new Machine(await newStorage(join(data, 'data')));
    machine.#data = data;
    return machine;
  }
  #data = '';

  get shipped(): string {
    return join(this.folder, 'audit.ndjson');
  }

  get url(): string {
    return String(this.#bundoc?.url);
  }

  get #kmsEnvironment(): Record<string, string> {
    return {
      BUNKMS_DATA_DIR: join(this.folder, 'kms'),
      BUNKMS_KEK: KEK,
      BUNKMS_AUDIT_SHIP: `file:${this.shipped}`,
    };
  }

  bunkms(args: string, environment: Record<string, string> = {}): Promise<Finished> {
    const variables = { NODE_ENV: 'test', ...PATIENT, ...this.#kmsEnvironment, ...environment };
    return capturedRun(() => runBunkms(args.split(' '), variables));
  }

  /** Offline commands of Bundoc, and those that use the running service. */
  bundoc(args: string, environment: Record<string, string> = {}): Promise<Finished> {
    const offline = { ...PATIENT_BUNDOC, BUNDOC_KMS_TOKEN_FILE: this.#tokenFile };
    const kms = { BUNDOC_KMS_URL: String(this.#kms?.internalUrl) };
    return bundocCommand(
      { ...offline, ...this.#stored.environment, ...kms, ...environment },
      args.split(' '),
    );
  }

  async startKms(): Promise<void> {
    succeeded(await this.bunkms(`init --service-token ${this.#tokenFile}`));
    this.#kms = await startConfigured(this.#kmsEnvironment);
  }

  async startBundoc(): Promise<void> {
    this.#bundoc = await startConfiguredBundoc({
      ...PATIENT_BUNDOC,
      ...this.#stored.environment,
      BUNDOC_KMS_URL: String(this.#kms?.internalUrl),
      BUNDOC_KMS_TOKEN_FILE: this.#tokenFile,
    });
  }

  async stopBundoc(): Promise<void> {
    await this.#bundoc?.[Symbol.asyncDispose]();
    this.#bundoc = undefined;
  }

  /** Everything on it is gone. */
  async lose(): Promise<void> {
    await this.stopBundoc();
    await this.#kms?.[Symbol.asyncDispose]();
    this.#kms = undefined;
    for (const folder of [this.folder, this.#data]) rmSync(folder, { recursive: true, force: true });
  }

  async token(scope: string): Promise<string> {
    const args = ['token', 'issue', '--typ', 'client', '--sub', 'app', '--scope', scope, '--project', '*'];
    const variables = { NODE_ENV: 'test', ...PATIENT, ...this.#kmsEnvironment };
    return succeeded(await capturedRun(() => runBunkms(args, variables))).trim();
  }
}

function succeeded({ code, stdout, stderr }: Finished): string {
  expect(code, stderr).toBe(0);
  return stdout;
}

const ALL = 'docs:read docs:write docs:admin';
const pathOf = (project: string, id: string) => `/v1/projects/${project}/collections/notes/documents/${id}`;

async function eachOf<T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> {
  const left = [...items];
  const work = async () => {
    for (let item = left.pop(); item !== undefined; item = left.pop()) await act(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

async function fill(projects: readonly string[], token: string): Promise<void> {
  await eachOf(projects, async (project) => {
    for (const [id, body] of [
      ['a', JSON.stringify({ of: project })],
      ['b', SECOND_DOCUMENT],
    ] as const) {
      const answer = await call(machine.url, pathOf(project, id), { method: 'PUT', token, body });
      expect(answer.status, answer.text).toBe(201);
    }
  });
}

/** Every document as the API answers it, with its metadata. */
async function documentsOf(projects: readonly string[], token: string): Promise<Map<string, string>> {
  const all = new Map<string, string>();
  await eachOf(projects, async (project) => {
    for (const id of ['a', 'b']) {
      const answer = await call(machine.url, pathOf(project, id), { token });
      expect(answer.status, answer.text).toBe(200);
      all.set(`${project}/${id}`, answer.text);
    }
  });
  return all;
}

/** Runs a command, and prints how long it takes. */
async function timed<T>(what: string, action: () => Promise<T>): Promise<T> {
  const startMs = performance.now();
  const result = await action();
  const seconds = (performance.now() - startMs) / 1_000;
  process.stdout.write(`a new machine: ${what} took ${seconds.toFixed(1)} s\n`);
  return result;
}

/**
 * Backs up BunKMS, creates the second half of the projects, starts Bundoc again, and backs up all projects.
 */
async function prepare(
  projects: readonly string[],
): Promise<{ token: string; written: Map<string, string> }> {
  await machine.startKms();
  await machine.startBundoc();
  const token = await machine.token(ALL);
  const half = projects.length >> 1;
  await fill(projects.slice(0, half), token);
  succeeded(
    await timed(`bunkms backup of ${half} keys`, () => machine.bunkms(`backup ${join(safe, 'kms.backup')}`)),
  );
  await fill(projects.slice(half), token);
  await rotate(String(projects[0]), token);
  await machine.stopBundoc();
  await machine.startBundoc();
  const written = await documentsOf(projects, token);
  const online = { BUNDOC_URL: machine.url, BUNDOC_TOKEN: token };
  const folder = join(safe, 'projects');
  const backedUp = await timed(`bundoc backup of ${projects.length} projects`, () =>
    machine.bundoc(`backup --all ${folder} --json`, online),
  );
  expect(JSON.parse(succeeded(backedUp))).toMatchObject({ written: projects.length, failed: [] });
  succeeded(await machine.bundoc(`verify-backup ${folder}`));
  return { token, written };
}

/** So that a project needs a key version that the backup of BunKMS lacks. */
async function rotate(project: string, token: string): Promise<void> {
  succeeded(await machine.bunkms(`key rotate ${dekNameOf(project)}`));
  const path = `/v1/projects/${project}`;
  const key = async () => (await call(machine.url, path, { token })).json()['key'];
  await expect.poll(key, { timeout: PATIENT_MS }).toMatchObject({ versions: [1, 2], documents_to_reseal: 0 });
}

async function keepCopyOfChain(): Promise<void> {
  const compare = async () => (await machine.bunkms(`audit verify-copy ${machine.shipped}`)).stdout;
  await expect.poll(compare, { timeout: PATIENT_MS }).toContain('in the store alone: 0');
  copyFileSync(machine.shipped, join(safe, 'audit.ndjson'));
}

async function loseMachine(): Promise<void> {
  await machine.lose();
  machine = await Machine.make();
}

const restoreProjects = async (folder = join(safe, 'projects')) => {
  const done = await machine.bundoc(`restore ${folder} --json`);
  return { code: done.code, ...(JSON.parse(done.stdout) as Record<string, unknown>) };
};
const outcomes = (recovered: Finished) =>
  (JSON.parse(recovered.stdout) as { projects: { outcome: string }[] }).projects.map(
    ({ outcome }) => outcome,
  );
/** The command in quotes that a refusal names, without the program. */
const namedIn = (stderr: string, command: string) =>
  String(new RegExp(`"bunkms (${command}[^"]*)"`).exec(stderr)?.[1]);

describe('a new machine', () => {
  it('has every document of every project of the lost one, by the KEK, the backups and the copy of the audit chain', {
    timeout: WITHIN_MS,
  }, async () => {
    const projects = Array.from({ length: runs(6, 1_000) }, (_, n) => `p-${String(n).padStart(4, '0')}`);
    const { token, written } = await prepare(projects);
    await keepCopyOfChain();
    await loseMachine();
    const restore = `restore ${join(safe, 'kms.backup')} --audit-copy ${join(safe, 'audit.ndjson')}`;
    succeeded(await timed('bunkms restore', () => machine.bunkms(restore)));
    expect(await machine.bunkms(restore)).toMatchObject({
      code: 5,
      stderr: expect.stringContaining('a store exists already'),
    });
    const recover = `recover --from ${join(safe, 'projects')} --json`;
    const recovered = outcomes(await timed('bunkms recover', () => machine.bunkms(recover)));
    const news = projects.length - (projects.length >> 1) + 1;
    expect(recovered.filter((outcome) => outcome === 'recovered')).toHaveLength(news);
    expect(new Set(outcomes(await machine.bunkms(recover)))).toEqual(new Set(['sound']));
    await machine.startKms();
    const refused = await machine.bundoc(`restore ${join(safe, 'projects')}`);
    expect(refused.code, refused.stderr).toBe(1);
    const takeOver = namedIn(refused.stderr, 'storage take-over');
    expect(await machine.bunkms(takeOver)).toMatchObject({
      code: 5,
      stderr: expect.stringContaining('add --force if the machine'),
    });
    const taken = await timed('take-over', () => machine.bunkms(`${takeOver} --force`));
    expect(succeeded(taken)).toContain(`has taken over ${projects.length} keys`);
    expect(succeeded(await machine.bunkms(`${takeOver} --force`))).toContain('has no key for');
    const restored = await timed('bundoc restore', () => restoreProjects());
    expect(restored).toMatchObject({ code: 0, restored: projects.length, failed: [], held: [] });
    expect(await restoreProjects()).toMatchObject({ code: 0, restored: 0, present: projects.length });
    const verified = await timed('bundoc verify', () => machine.bundoc('verify'));
    expect([verified.code, verified.stderr]).toEqual([0, expect.stringContaining('all good')]);
    await machine.startBundoc();
    // The former token is accepted as before.
    expect(await documentsOf(projects, token)).toEqual(written);
    succeeded(await machine.bunkms('audit verify'));
  });

  it('refuses projects as lost that no backup has, creates none of them again, and settles each loss by one command', async () => {
    const projects = ['p-0', 'p-1'];
    const { token } = await prepare(projects);
    await fill(['known'], token);
    succeeded(await machine.bunkms(`backup ${join(safe, 'kms-later.backup')}`));
    await fill(['newer'], token);
    await keepCopyOfChain();
    await loseMachine();
    const kms = join(safe, 'kms-later.backup');
    succeeded(await machine.bunkms(`restore ${kms} --audit-copy ${join(safe, 'audit.ndjson')}`));
    const recover = `recover --from ${join(safe, 'projects')}`;
    const recovered = await machine.bunkms(recover);
    expect([recovered.code, recovered.stdout]).toEqual([1, expect.stringContaining('newer-dek  lost')]);
    const destroy = namedIn(recovered.stderr, 'key destroy').replaceAll('<name>', 'newer-dek');
    await machine.startKms();
    const takeOver = namedIn(
      (await machine.bundoc(`restore ${join(safe, 'projects')}`)).stderr,
      'storage take-over',
    );
    succeeded(await machine.bunkms(`${takeOver} --force`));
    expect(await restoreProjects()).toMatchObject({ code: 0, restored: projects.length });
    await machine.startBundoc();
    const write = (project: string) =>
      call(machine.url, pathOf(project, 'c'), { method: 'PUT', token, body: '{}' });
    for (const project of ['known', 'newer'])
      expect((await write(project)).json()).toMatchObject({ status: 503, code: 'project_damaged' });
    const again = await write('p-0');
    expect(again.status, again.text).toBe(201);

    const verified = async (name: string) => {
      succeeded(await machine.bunkms(`backup ${join(safe, name)}`));
      return machine.bunkms(`backup verify ${join(safe, name)}`);
    };
    expect((await verified('before')).stdout).toContain('newer-dek version 1 is lost');
    succeeded(await machine.bunkms(destroy));
    succeeded(await verified('after'));
    succeeded(await machine.bunkms(recover));
    await machine.stopBundoc();
    succeeded(await machine.bundoc('accept-loss known'));
    await machine.startBundoc();
    expect((await write('known')).status).toBe(201);
  });

  it('has them without a copy of the audit chain, once an administrator has reviewed and claimed the keys', async () => {
    const projects = Array.from({ length: runs(4, 50) }, (_, n) => `p-${n}`);
    const { token, written } = await prepare(projects);
    await loseMachine();
    succeeded(await machine.bunkms(`restore ${join(safe, 'kms.backup')}`));
    succeeded(await machine.bunkms(`recover --from ${join(safe, 'projects')}`));
    await machine.startKms();
    const unheld = await machine.bundoc(`restore ${join(safe, 'projects')}`);
    expect(unheld.code).toBe(1);
    expect(unheld.stderr).toContain(`no storage holds the keys of ${projects.length} projects, such as p-0`);
    const claim = namedIn(unheld.stderr, 'storage claim-all');
    for (const outcome of ['claimed', 'held']) {
      const claimed = succeeded(await machine.bunkms(`${claim} --json`));
      expect(JSON.parse(claimed).projects).toEqual(
        projects.toSorted().map((project) => ({ project, key: dekNameOf(project), outcome })),
      );
    }
    const disabled = await machine.bundoc(`restore ${join(safe, 'projects')}`);
    expect(disabled).toMatchObject({ code: 1, stderr: expect.stringContaining('"bunkms key review"') });
    succeeded(await machine.bunkms('key review --enable-all'));
    expect(await restoreProjects()).toMatchObject({ code: 0, restored: projects.length });
    await machine.startBundoc();
    expect((await call(machine.url, pathOf('p-0', 'a'), { token })).status).toBe(401);
    expect(await documentsOf(projects, await machine.token(ALL))).toEqual(written);
  });

  it('says at each step what to do about a wrong KEK, a wrong storage, a step left out and a damaged file', async () => {
    const projects = ['p-0', 'p-1', 'p-2', 'p-3'];
    await prepare(projects);
    await keepCopyOfChain();
    await loseMachine();
    const restore = `restore ${join(safe, 'kms.backup')} --audit-copy ${join(safe, 'audit.ndjson')}`;
    const other = { BUNKMS_KEK: randomBytes(32).toString('hex') };
    const wrongKek = await machine.bunkms(restore, other);
    expect(wrongKek).toMatchObject({
      code: 7,
      stderr: expect.stringContaining('put that KEK into the ring'),
    });
    succeeded(await machine.bunkms(restore));
    const wrongFolder = await machine.bunkms(`recover --from ${safe}`);
    expect(wrongFolder).toMatchObject({ code: 1, stderr: expect.stringContaining('has no project') });
    await machine.startKms();
    const refused = await machine.bundoc(`restore ${join(safe, 'projects')}`);
    const takeOver = namedIn(refused.stderr, 'storage take-over');
    const [, , storage = '', , old = ''] = takeOver.split(' ');
    const wrong = await machine.bunkms(`storage take-over ${storage} --of ${crypto.randomUUID()} --confirm`);
    expect(wrong).toMatchObject({ code: 3, stderr: expect.stringContaining('"bunkms storage list"') });
    const swapped = await machine.bunkms(`storage take-over ${old} --of ${storage} --confirm`);
    expect(succeeded(swapped)).toContain('"bunkms storage list --json"');
    succeeded(await machine.bunkms(`${takeOver} --force`));
    const unrecovered = await machine.bundoc(`restore ${join(safe, 'projects')}`);
    expect(unrecovered.code).toBe(1);
    expect(unrecovered.stderr).toContain('"bunkms recover --from <folder>"');
    succeeded(await machine.bunkms(`recover --from ${join(safe, 'projects')}`));
    const file = join(safe, 'projects', 'p-3.backup');
    const bytes = readFileSync(file);
    writeFileSync(file, bytes.subarray(0, -1));
    const damaged = await machine.bundoc(`restore ${join(safe, 'projects')}`);
    expect(damaged.code).toBe(1);
    expect(damaged.stderr).toContain('run "bundoc restore <file>" with it');
    writeFileSync(file, bytes);
    expect(await restoreProjects()).toMatchObject({ code: 0, restored: 1, present: 3 });
  });
});
