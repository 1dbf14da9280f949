import { createHash, randomBytes, randomUUID } from 'node:crypto';
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { MARK_KEY, sealMoveMark } from '@bundoc/bundoc/engine/moves/move-mark';
import { withStore } from '@bundoc/bunkms/cli/open-kms';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { deriveKey } from '@bundoc/shared/crypto/aead';
import { decodeExportedKey } from '@bundoc/shared/crypto/exported-key';
import { runs } from '@bundoc/shared/testing/long';
import { expect, it } from 'vitest';
import { type Answer, type Call, call, Installation } from './support/installation.ts';
import { RowsOperator } from './support/rows-operator.ts';
import { FolderOperator, type HostileStorage, randomOf } from './support/storage-operator.ts';

/** The time of all runs; their number depends on the machine. */
const RUN_MS = runs(2_500, 1_800_000);
/** The fewest runs, on a machine that is too busy for more in the time. */
const SEEDS_MIN = 4;
/** As many are enough to see both a served and a refused request. */
const SEEDS_FOR_BOTH = 50;
/** Repeats one run, with the seed that a failure names. */
const SEED = process.env['BUNDOC_HOSTILE_SEED'];
/** An operation that takes this long hangs. */
const HANGS_MS = 60_000;
/** The allowed memory growth of the process in bytes, while 10 GiB are planted. */
const MEMORY_BYTES_MAX = 1_610_612_736;

/** The modification and access time of files outside, in seconds. */
const LONG_AGO_S = 1_000_000_000;

const LIVING = ['a', 'b'] as const;
const DELETED = 'deleted';
const NEVER = ['ghost', 'b-dek'];
const IDS = ['one', 'two', 'three', 'four'];
/** The log line after BunKMS has refused the generation. */
const SUPERSEDED = /another copy of this storage is in use, so nothing is served: .*bunkms storage take-over/;
/** Audit actions that only use or read a key. */
const USES = new Set(['key.export', 'key.read', 'key.list', 'key.leases', 'key.pem']);

it('an attacker with the storage can only make Bundoc refuse: no key changes, no forged document is served, nothing outside is touched', {
  timeout: RUN_MS + 400_000,
}, async () => {
  await using world = await World.start();
  const begin = Date.now();
  let seeds = 0;
  const isOneSided = () => seeds < SEEDS_FOR_BOTH && (world.served === 0 || world.refused === 0);
  for (const seed of seedsFor(() => Date.now() - begin < RUN_MS || seeds < SEEDS_MIN || isOneSided())) {
    try {
      await world.run(seed);
    } catch (error) {
      throw new Error(`seed ${seed} (BUNDOC_HOSTILE_SEED=${seed}): ${world.acts.join('; ')}`, {
        cause: error,
      });
    }
    seeds++;
  }
  const { served, refused, superseded, noStart } = world;
  process.stdout.write(
    `hostile storage: ${JSON.stringify({ seeds, served, refused, superseded, noStart })}\n`,
  );
  // Without both outcomes, the test would show nothing.
  if (SEED === undefined) expect([served > 0, refused > 0]).toEqual([true, true]);
});

function* seedsFor(goesOn: () => boolean): Generator<number> {
  if (SEED !== undefined) {
    yield Number(SEED);
    return;
  }
  const first = randomBytes(4).readUInt32BE();
  process.stdout.write(`hostile storage: seeds from ${first}\n`);
  for (let at = 0; goesOn(); at++) yield (first + at) >>> 0;
}

/** An installation, everything ever written to it, and the files outside its data folder. */
class World implements AsyncDisposable {
  readonly #installation: Installation;
  readonly #token: string;
  readonly #outside: string;
  readonly #canary = `canary-${randomBytes(16).toString('hex')}`;
  readonly #storage: HostileStorage;
  /** Every text ever sent for a document, by project and id. */
  readonly #written = new Map<string, Set<string>>();
  /** Requested actions, by key. */
  readonly #asked = new Map<string, Set<string>>();
  #outsideBefore: readonly string[] = [];
  #auditSeq = 0;
  #logLength = 0;
  #memory = 0;
  #storageId = '';
  acts: string[] = [];
  served = 0;
  refused = 0;
  superseded = 0;
  noStart = 0;

  private constructor(installation: Installation, token: string) {
    const projects = [...LIVING, DELETED, ...NEVER];
    const { folder, dataDir } = installation;
    const { BUNDOC_STORAGE: url } = installation.stored.environment;
    this.#installation = installation;
    this.#token = token;
    this.#outside = join(folder, 'outside');
    this.#storage =
      url === undefined
        ? new FolderOperator({ dataDir, copiesDir: folder, outside: this.#outside, projects })
        : new RowsOperator(url, projects);
  }

  static async start(): Promise<World> {
    const installation = await Installation.start({
      settings: { cacheBytes: 0 },
    });
    const token = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
    const world = new World(installation, token);
    await world.#fill();
    return world;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#storage[Symbol.asyncDispose]();
    await this.#installation[Symbol.asyncDispose]();
  }

  /** One run: the attacker's actions from the seed, a start, requests, and the checks of the outcome. */
  async run(seed: number): Promise<void> {
    const random = randomOf(seed);
    await this.#storage.reset();
    this.acts = [];
    for (let left = 1 + Math.floor(random() * 4); left > 0; left--)
      this.acts.push(await this.#storage.act(random));
    const logged = this.#installation.log.text.length;
    if (await this.#started()) {
      const { reason, storage_id: id, generation } = await this.#readiness();
      const { served } = this;
      await this.#ask(random);
      if (reason === 'storage_superseded') {
        this.superseded++;
        expect(this.served).toBe(served);
        expect(this.#installation.log.text.slice(logged)).toMatch(SUPERSEDED);
      }
      await inTime(this.#installation.stopBundoc(), 'the end of the service');
      // From here on, BunKMS accepts only this generation.
      if (id === this.#storageId && generation !== undefined) await this.#storage.keepIdentity();
    } else this.noStart++;
    await this.#judge();
  }

  async #readiness(): Promise<Record<string, unknown>> {
    return (await call(this.#installation.url, '/ready')).json();
  }

  /**
   * Creates three projects with a history, keeps copies of the folder on the way, and makes an identical
   * folder outside.
   */
  async #fill(): Promise<void> {
    for (let round = 0; round < 3; round++) {
      for (const project of [...LIVING, DELETED]) {
        this.#allow(project, 'key.create', 'key.claim');
        for (const id of IDS.slice(0, round + 2)) await this.#put(project, id, `${project} ${id} ${round}`);
      }
      if (round === 1) await this.#send('a', '/collections/notes/documents/three', { method: 'DELETE' });
      if (round === 2) {
        this.#allow(DELETED, 'key.destroy', 'key.deletion_intent', 'key.shred', 'key.content_removed');
        await this.#send(DELETED, `?confirm=${DELETED}`, { method: 'DELETE' });
      }
      await this.#installation.stopBundoc();
      await this.#storage.keepCopy();
      await this.#installation.startBundoc();
    }
    this.#storageId = await this.#installation.storageId();
    await this.#installation.stopBundoc();
    await this.#storage.keepIdentity();
    this.#storage.keepMarks(await this.#genuineMarks());
    mkdirSync(join(this.#outside, 'folder'), { recursive: true });
    for (const path of ['canary', 'folder/canary', 'folder/project.json', 'folder/00000001'])
      writeFileSync(join(this.#outside, path), this.#canary);
    const { dataDir } = this.#installation;
    if (existsSync(dataDir)) cpSync(dataDir, join(this.#outside, 'copy'), { recursive: true });
    // The first scan sets the times that the second one compares.
    this.#lookOutside();
    this.#outsideBefore = this.#lookOutside();
    await this.#judge();
    // The requests after this point ask for no change of a key.
    this.#asked.clear();
    this.#memory = process.memoryUsage.rss();
  }

  /** Genuine move markers of the existing projects, sealed by Bundoc. */
  async #genuineMarks(): Promise<string[]> {
    const { kms, tokenFile } = this.#installation;
    const token = readFileSync(tokenFile, 'utf8').trim();
    const marks: string[] = [];
    for (const project of LIVING) {
      const exported = await call(kms.internalUrl, `/v1/export/${dekNameOf(project)}`, { token });
      const { facts, dek } = decodeExportedKey(Buffer.from(exported.text));
      const cipher = { version: facts.version, subkey: () => deriveKey(dek, MARK_KEY) };
      for (const state of ['incoming', 'whole', 'leaving', 'moved'] as const)
        for (const since of [new Date(0), new Date()]) {
          const storages = { from: this.#storageId, to: randomUUID() };
          const mark = { state, move: randomUUID(), ...storages, since: since.toISOString() };
          marks.push(sealMoveMark(project, cipher, mark));
        }
    }
    return marks;
  }

  /** Whether the service starts. If it does not, it must give a reason in time. */
  async #started(): Promise<boolean> {
    try {
      await inTime(this.#installation.startBundoc(), 'the start');
      return true;
    } catch (error) {
      if (error instanceof Hung) throw error;
      expect(error).toMatchObject({ message: expect.stringMatching(/./) });
      return false;
    }
  }

  async #ask(random: () => number): Promise<void> {
    for (const project of [...LIVING, ...NEVER]) {
      for (const id of IDS)
        this.#judgeDocument(project, id, await this.#send(project, `/collections/notes/documents/${id}`));
      this.#judgeList(project, await this.#send(project, '/collections/notes/documents'));
      await this.#send(project, '/changes?limit=10');
    }
    await this.#send('a', '/collections/notes/query', {
      method: 'POST',
      body: '{"where":{"text":{"$gte":""}}}',
    });
    await call(this.#installation.url, '/v1/projects', { token: this.#token });
    for (const project of LIVING) {
      const id = IDS[Math.floor(random() * IDS.length)] as string;
      await this.#put(project, id, `${project} ${id} ${random()}`);
      this.#judgeDocument(project, id, await this.#send(project, `/collections/notes/documents/${id}`));
    }
    // Requests for projects that do not exist must have no effect.
    for (const project of [DELETED, ...NEVER]) {
      if (random() < 0.5) continue;
      const { status } = await this.#send(project, `?confirm=${project}`, { method: 'DELETE' });
      expect([project, status < 400]).toEqual([project, project === DELETED && status === 200]);
    }
    if (random() < 0.3) await this.#send('b', '/collections/notes/documents/one', { method: 'DELETE' });
  }

  async #put(project: string, id: string, text: string): Promise<void> {
    const key = `${project}/${id}`;
    this.#written.set(key, (this.#written.get(key) ?? new Set()).add(text));
    await this.#send(project, `/collections/notes/documents/${id}`, {
      method: 'PUT',
      body: JSON.stringify({ text }),
    });
  }

  async #send(project: string, path: string, options: Call = {}): Promise<Answer> {
    const { url } = this.#installation;
    const answer = await inTime(
      call(url, `/v1/projects/${project}${path}`, { ...options, token: this.#token }),
      `${options.method ?? 'GET'} ${project}${path}`,
    );
    expect(answer.text).not.toContain(this.#canary);
    if (answer.status < 400) this.served++;
    else this.refused++;
    // An internal error is a defect: every content of a disk must be handled.
    if (answer.status >= 400) expect(answer.json()['code'], answer.text).not.toBe('internal_error');
    return answer;
  }

  #judgeDocument(project: string, id: string, answer: Answer): void {
    if (answer.status !== 200) return;
    const { _id, text } = answer.json();
    expect(_id).toBe(id);
    expect([...(this.#written.get(`${project}/${id}`) ?? [])]).toContain(text);
  }

  #judgeList(project: string, answer: Answer): void {
    if (answer.status !== 200) return;
    const { documents } = answer.json() as { documents: { _id: string; text: string }[] };
    for (const { _id: id, text } of documents)
      expect([...(this.#written.get(`${project}/${id}`) ?? [])]).toContain(text);
  }

  #allow(project: string, ...actions: string[]): void {
    const key = dekNameOf(project);
    this.#asked.set(key, new Set([...(this.#asked.get(key) ?? []), ...actions]));
  }

  async #judge(): Promise<void> {
    for (const { action, key, outcome } of await this.#newRecords()) {
      if (outcome !== 'allowed' || USES.has(action)) continue;
      if (key !== undefined && (action.startsWith('key.') || action.startsWith('storage.')))
        expect([...(this.#asked.get(key) ?? [])], `${action} of ${key}`).toContain(action);
      expect(action).not.toBe('storage.take_over');
    }
    const { text } = this.#installation.log;
    expect(text.slice(this.#logLength)).not.toContain(this.#canary);
    this.#logLength = text.length;
    expect(this.#lookOutside()).toEqual(this.#outsideBefore);
    expect(process.memoryUsage.rss() - this.#memory).toBeLessThan(MEMORY_BYTES_MAX);
  }

  async #newRecords(): Promise<readonly Pick<AuditRecord, 'action' | 'key' | 'outcome'>[]> {
    return withStore(this.#installation.kmsEnvironment, async (store) => {
      const { items } = await store.listAudit({ after: this.#auditSeq, limit: 10_000 });
      this.#auditSeq = items.at(-1)?.seq ?? this.#auditSeq;
      return items;
    });
  }

  /**
   * A line for each entry outside: its names or the hash of its content, and its times. Access times are set
   * back afterwards, so that a later read shows on a file system that records them.
   */
  #lookOutside(): string[] {
    const lines: string[] = [];
    const look = (path: string): void => {
      const stats = lstatSync(path);
      const names = stats.isDirectory() ? readdirSync(path).sort() : [];
      const content = stats.isFile() ? readFileSync(path) : '';
      const hash = createHash('sha256').update(content).digest('hex');
      const { mode, mtimeMs, atimeMs } = stats;
      lines.push(JSON.stringify({ path, mode, mtimeMs, atimeMs, names, hash }));
      for (const name of names) look(join(path, name));
      utimesSync(path, LONG_AGO_S, LONG_AGO_S);
    };
    look(this.#outside);
    return lines;
  }
}

class Hung extends Error {}

async function inTime<T>(action: Promise<T>, what: string): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Hung(`${what} hangs`)), HANGS_MS);
  try {
    return await Promise.race([action, promise]);
  } finally {
    clearTimeout(timer);
  }
}
