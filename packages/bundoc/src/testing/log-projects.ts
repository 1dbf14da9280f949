import { randomBytes } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { takeKey } from '@bundoc/shared/crypto/aead';
import { LARGE_FILE_BYTES_MAX } from '../engine/files/disk/disk.ts';
import type { FramePlace, Place } from '../engine/files/log/layout.ts';
import { Log } from '../engine/files/log/log.ts';
import type {
  AttachedHandle,
  CarriedContent,
  CarryTarget,
  LogLimits,
  LogMark,
  LogOptions,
  PartSource,
  ReadableLog,
  TakenPart,
} from '../engine/files/log/log-api.ts';
import type { PartKeys } from '../engine/files/log/part-seal.ts';
import { lastCarried, type OpenedPart, openParts, partsBehind } from '../engine/files/log/parts.ts';
import { PartsDamaged } from '../engine/files/log/sealed-part.ts';
import { partKeysOf } from './part-keys.ts';
import type { SimulatedDisk } from './simulated-disk.ts';

/** Small enough that a few commits fill a segment. */
export const SMALL_LIMITS: LogLimits = {
  segmentBytes: 65_536,
  segmentsMin: 4,
  segmentsMax: 8,
  frameBytes: 16_384,
  chunkBytes: 4_096,
};

export type Fate = 'waiting' | 'acknowledged' | 'refused' | 'unknown';

/** A commit that was given to the log, and its known fate. */
export interface GivenCommit {
  readonly id: number;
  fate: Fate;
}

/**
 * A project in a test: a list of numbers instead of documents. It outlives the log and its processes.
 */
export class LogProject {
  readonly name: string;
  readonly handle = randomBytes(8).toString('hex');
  readonly dek = takeKey(randomBytes(32));
  readonly keys: PartKeys = keptKeys(partKeysOf(new Map([[1, this.dek]])));
  /** All commits that were ever given to the log, in order. */
  readonly given: GivenCommit[] = [];

  constructor(name: string) {
    this.name = name;
  }

  get directory(): string {
    return `/projects/${this.name}`;
  }
}

/** Derives each key once, as a cipher of a project does. */
function keptKeys(keys: PartKeys): PartKeys {
  const kept = new Map<string, ReturnType<PartKeys['subkey']>>();
  return {
    subkey: (version, info, salt) => {
      const name = `${version} ${info} ${salt.toString('hex')}`;
      const known = kept.get(name) ?? keys.subkey(version, info, salt);
      kept.set(name, known);
      return known;
    },
  };
}

interface WaitingCommit {
  readonly given: GivenCommit;
  readonly bytes: Buffer;
  readonly makesRoom: boolean;
}

function encodeCommit({ given, bytes }: WaitingCommit): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(given.id, 0);
  head.writeUInt32BE(bytes.length, 4);
  return Buffer.concat([head, bytes]);
}

/** The commits in a part. */
export function idsOf(plaintext: Buffer): number[] {
  const ids: number[] = [];
  for (let at = 0; at < plaintext.length; ) {
    ids.push(plaintext.readUInt32BE(at));
    at += 8 + plaintext.readUInt32BE(at + 4);
  }
  return ids;
}

/** The snapshot in a project's folder. */
interface Catalog {
  readonly covered: { segment: number; frame: number; tag: string } | undefined;
  readonly ids: readonly number[];
}

const placeOf = ({ covered }: Catalog): Place | undefined =>
  covered && { ...covered, tag: Buffer.from(covered.tag, 'hex') };

/** An open project. It stands in for the engine. */
export class OpenLogProject implements PartSource {
  readonly #project: LogProject;
  readonly #attached: AttachedHandle;
  readonly #waiting: WaitingCommit[] = [];
  readonly #settle = new Map<GivenCommit, PromiseWithResolvers<void>>();
  /** The durable commits of the project, in order. */
  readonly ids: number[];
  /** Thrown when the next part is durable. */
  durableFault: Error | undefined;
  /** The failures that the log has reported. */
  readonly failures: unknown[] = [];

  constructor(log: Log, project: LogProject, ids: readonly number[], last: Place | undefined) {
    this.#project = project;
    this.ids = [...ids];
    this.#attached = log.attach(this, last);
  }

  get handle(): string {
    return this.#project.handle;
  }

  get project(): string {
    return this.#project.name;
  }

  get keys(): PartKeys {
    return this.#project.keys;
  }

  get makesRoom(): boolean {
    return this.#waiting.some(({ makesRoom }) => makesRoom);
  }

  mark(): LogMark | undefined {
    return this.#attached.mark();
  }

  detach(): void {
    this.#attached.detach();
  }

  /** Settles when the commit is answered. */
  commit(given: GivenCommit, bytes: number, makesRoom = false): Promise<void> {
    const done = Promise.withResolvers<void>();
    this.#project.given.push(given);
    this.#settle.set(given, done);
    this.#waiting.push({ given, bytes: Buffer.alloc(bytes, given.id), makesRoom });
    this.#attached.ready();
    return done.promise;
  }

  get nextBytes(): number | undefined {
    return this.#waiting[0]?.bytes.length;
  }

  take(bytesMax: number, onlyMakingRoom: boolean): TakenPart | undefined {
    const taken: WaitingCommit[] = [];
    let bytes = 0;
    for (const waiting of this.#waiting) {
      if (onlyMakingRoom && !waiting.makesRoom) break;
      if (taken.length > 0 && bytes + waiting.bytes.length > bytesMax) break;
      bytes += waiting.bytes.length + 8;
      taken.push(waiting);
    }
    if (taken.length === 0) return undefined;
    this.#waiting.splice(0, taken.length);
    return {
      kind: 'data',
      plaintext: taken.map(encodeCommit),
      keyVersion: 1,
      commits: taken.length,
      durable: () => {
        const fault = this.durableFault;
        this.durableFault = undefined;
        if (fault !== undefined) throw fault;
        this.ids.push(...taken.map(({ given }) => given.id));
      },
      answer: () => this.#end(taken, 'acknowledged'),
      refused: (error) => this.#end(taken, 'refused', error),
      unknown: (error) => this.#end(taken, 'unknown', error),
    };
  }

  refuse(error: AppError): void {
    const refused = this.#waiting.filter(({ makesRoom }) => !(makesRoom && hasCode(error, 'disk_full')));
    for (const one of refused) this.#waiting.splice(this.#waiting.indexOf(one), 1);
    this.#end(refused, 'refused', error);
  }

  fail(error: unknown): void {
    this.failures.push(error);
  }

  #end(commits: readonly WaitingCommit[], fate: Fate, error?: AppError): void {
    for (const { given } of commits) {
      given.fate = fate;
      const done = this.#settle.get(given);
      if (error === undefined) done?.resolve();
      else done?.reject(error);
    }
  }
}

/** A data folder: many projects on one log, with snapshots and carried parts in their folders. */
export class LogWorld {
  readonly projects: readonly LogProject[];
  readonly storageId = randomBytes(16);
  readonly limits: LogLimits;
  readonly #freeing = new Set<Log>();
  #hadLog = false;
  #counter = 0;

  constructor(projects: number, limits: LogLimits = SMALL_LIMITS) {
    this.projects = Array.from({ length: projects }, (_, at) => new LogProject(`p${at}`));
    this.limits = limits;
  }

  directories(): string[] {
    return ['/', '/projects', ...this.projects.map(({ directory }) => directory)];
  }

  newCommit(): GivenCommit {
    return { id: ++this.#counter, fate: 'waiting' };
  }

  /** Opens the log, without any key. */
  async openLog(disk: SimulatedDisk, options: Partial<LogOptions> = {}): Promise<Log> {
    const { storageId, limits } = this;
    const directory = '/log';
    const onPressure = () => {
      if (log !== undefined) void this.#freeSome(log, disk);
    };
    let log: Log | undefined;
    log = await Log.open({
      disk,
      directory,
      storageId,
      limits,
      mustExist: this.#hadLog,
      observer: { onPressure },
      // After a crash, nothing continues.
      wait: () => (disk.crashed ? new Promise(() => undefined) : setImmediate()),
      ...options,
    });
    this.#hadLog = true;
    for (const project of this.projects) {
      const covered = await this.#coveredOf(disk, project);
      if (covered !== undefined) log.coverTo(project.handle, covered);
    }
    return log;
  }

  /** Frees segments as the engine does when the log fills. */
  async #freeSome(log: Log, disk: SimulatedDisk): Promise<void> {
    if (this.#freeing.has(log)) return;
    this.#freeing.add(log);
    try {
      for (let live = Number.POSITIVE_INFINITY; log.shouldFree && log.stats.segmentsLive < live; ) {
        live = log.stats.segmentsLive;
        await log.carryOldest(this.carryTarget(disk));
      }
    } catch (error) {
      if (error instanceof AppError) log.refuseHeld(error);
    } finally {
      this.#freeing.delete(log);
    }
  }

  /** The commits that a project has. @throws PartsDamaged */
  async contentOf(
    log: ReadableLog,
    disk: SimulatedDisk,
    project: LogProject,
  ): Promise<{ ids: number[]; last: Place | undefined; parts: number }> {
    const { handle } = project;
    const catalog = await this.#catalogOf(disk, project);
    const covered = catalog && placeOf(catalog);
    const carried = await this.#carriedOf(log, disk, project);
    const isKnown = [covered, lastCarried(handle, carried)].some((place) => !log.isDoubtful(handle, place));
    if (!isKnown) throw new PartsDamaged('parts may be lost');
    const ids = [...(catalog?.ids ?? [])];
    let last = covered;
    let parts = 0;
    for await (const part of this.#partsOf(log, project, covered, carried)) {
      ids.push(...idsOf(part.plaintext));
      last = part.place;
      parts++;
    }
    // A chunk without an end is the last part, too.
    return { ids, last: log.newest(handle) ?? last, parts };
  }

  async #carriedOf(
    log: ReadableLog,
    disk: SimulatedDisk,
    { handle, directory }: LogProject,
  ): Promise<Buffer[]> {
    const carried: Buffer[] = await log.stuck.read(handle);
    for (const file of (await disk.list(directory)) ?? []) {
      if (file.startsWith('carried-'))
        carried.push((await disk.read(`${directory}/${file}`, LARGE_FILE_BYTES_MAX)) ?? Buffer.alloc(0));
    }
    return carried;
  }

  async *#partsOf(
    log: ReadableLog,
    { handle, name, keys }: LogProject,
    covered: Place | undefined,
    carried: readonly Buffer[],
  ): AsyncGenerator<OpenedPart> {
    await using reader = log.reader();
    const wanted = { handle, newest: log.newest(handle), covered, carried };
    yield* openParts(name, this.storageId, keys, partsBehind(reader, wanted));
  }

  async open(log: Log, disk: SimulatedDisk, project: LogProject): Promise<OpenLogProject> {
    const { ids, last } = await this.contentOf(log, disk, project);
    return new OpenLogProject(log, project, ids, last);
  }

  /** Makes a snapshot durable, and tells the log which parts it covers. */
  async checkpoint(log: Log, disk: SimulatedDisk, open: OpenLogProject): Promise<void> {
    const mark = open.mark();
    if (mark === undefined) return;
    const { place } = mark;
    const covered = { segment: place.segment, frame: place.frame, tag: place.tag.toString('hex') };
    const content: Catalog = { covered, ids: open.ids };
    await replace(disk, `/projects/${open.project}/catalog`, Buffer.from(JSON.stringify(content)));
    log.cover(open.handle, mark);
  }

  /** Puts carried parts into the folders of their projects. */
  carryTarget(disk: SimulatedDisk, fails: (project: string) => boolean = () => false): CarryTarget {
    const nameOf = new Map(this.projects.map(({ handle, name }) => [handle, name]));
    const put = async ({ handle, segment, content }: CarriedContent): Promise<AppError | undefined> => {
      const name = nameOf.get(handle) ?? '';
      if (fails(name)) return new AppError('storage_unavailable');
      await replace(disk, `/projects/${name}/carried-${segment}`, content);
      return undefined;
    };
    return {
      write: async (files) => {
        const outcomes: (AppError | undefined)[] = [];
        for (const file of files)
          outcomes.push(
            await put(file).catch((error: unknown) => {
              if (error instanceof AppError) return error;
              throw error;
            }),
          );
        return outcomes;
      },
    };
  }

  async #coveredOf(disk: SimulatedDisk, project: LogProject): Promise<FramePlace | undefined> {
    const catalog = await this.#catalogOf(disk, project);
    return catalog && placeOf(catalog);
  }

  async #catalogOf(disk: SimulatedDisk, { directory }: LogProject): Promise<Catalog | undefined> {
    const bytes = await disk.read(`${directory}/catalog`, LARGE_FILE_BYTES_MAX);
    return bytes && (JSON.parse(bytes.toString()) as Catalog);
  }
}

async function replace(disk: SimulatedDisk, path: string, content: Buffer): Promise<void> {
  await disk.remove(`${path}.tmp`);
  await disk.createFile(`${path}.tmp`, content);
  await disk.rename(`${path}.tmp`, path);
  await disk.syncDirectory(path.slice(0, path.lastIndexOf('/')));
}
