import { randomInt } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { ObjectStorageError } from '@bundoc/shared/object-storage/port';
import { runs } from '@bundoc/shared/testing/long';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { type EngineStep, engineStep } from '../../../testing/engine-steps.ts';
import { EngineWorld } from '../../../testing/engine-world.ts';
import { ObjectsInMemory, type UploadFault } from '../../../testing/objects-in-memory.ts';
import { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import { formatStorageFile, newStorageFile } from '../../identity/storage-file.ts';
import { ArchiveReader } from './lineage.ts';
import { PositionStore } from './position.ts';
import { planPrune, prune } from './prune.ts';
import { planRestore, restoreArchive } from './restore.ts';
import { ChainNotBegun, Shipper } from './shipper.ts';

const RUNS = Number(process.env['ARCHIVE_RUNS'] ?? runs(20, 1_000));
const SEED = Number(process.env['ARCHIVE_SEED'] ?? randomInt(1, 2_147_483_646));
const RUN = {
  numRuns: RUNS,
  seed: SEED,
  ...(process.env['ARCHIVE_PATH'] === undefined
    ? {}
    : { path: process.env['ARCHIVE_PATH'], endOnFailure: true }),
  interruptAfterTimeLimit: Number(process.env['ARCHIVE_MS'] ?? runs(40_000, 600_000)),
};
const SEGMENT_BYTES = 65_536;
/** More than any history of a test has. */
const OBJECTS_MAX = 2_000;

beforeEach(() => {
  process.stdout.write(`archive: ARCHIVE_SEED=${SEED}\n`);
});

type ArchiveStep =
  | EngineStep
  /** Ships some objects, of which uploads may fail. */
  | { readonly kind: 'ship'; readonly objects: number; readonly faults: readonly (UploadFault | undefined)[] }
  /** Ships everything, and remembers what users know now. */
  | { readonly kind: 'moment' }
  /** Another process ships from where the position is. */
  | { readonly kind: 'other shipper' }
  /** Forgets the moments before one, and is interrupted after some objects. */
  | { readonly kind: 'prune'; readonly moment: number; readonly objects: number };

const uploadFault = fc.constantFrom<UploadFault | undefined>(
  undefined,
  'lost',
  'done but reported as failed',
);
/** Without failing folders: what they have is not in the archive. */
const calmStep = engineStep.filter(
  ({ kind }) => !['folder fails', 'folder works', 'commits on a full disk'].includes(kind),
);
const archiveStep: fc.Arbitrary<ArchiveStep> = fc.oneof(
  { weight: 6, arbitrary: calmStep },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('ship' as const),
      objects: fc.integer({ min: 1, max: 5 }),
      faults: fc.array(uploadFault, { maxLength: 4 }),
    }),
  },
  { weight: 2, arbitrary: fc.constant({ kind: 'moment' } as const) },
  { weight: 1, arbitrary: fc.constant({ kind: 'other shipper' } as const) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('prune' as const),
      moment: fc.nat(3),
      objects: fc.nat(40),
    }),
  },
);

/** A data folder and its archive. */
class ArchivedWorld {
  readonly world = new EngineWorld();
  readonly objects = new ObjectsInMemory();
  readonly disk = new SimulatedDisk('/', '/projects', '/tmp');
  moments: { readonly atMs: number; readonly world: EngineWorld }[] = [];
  readonly #roundBytes: number;
  readonly #objectBytes: number;
  readonly #partsBytes: number;
  #shipper: Shipper | undefined;
  #traced = 0;

  constructor(roundBytes: number, objectBytes: number, partsBytes: number) {
    this.#roundBytes = roundBytes;
    this.#partsBytes = partsBytes;
    this.#objectBytes = objectBytes;
  }

  async start(): Promise<void> {
    const file = newStorageFile();
    Buffer.from(file.id.replaceAll('-', ''), 'hex').copy(this.world.storageId);
    await this.disk.createFile('/storage.json', Buffer.from(formatStorageFile(file)));
    this.world.keepFrom = 0;
    await this.world.start();
  }

  async step(step: ArchiveStep): Promise<void> {
    switch (step.kind) {
      case 'ship':
        this.objects.faults.push(...step.faults);
        for (let objects = 0; objects < step.objects; objects++) await this.#shipOne();
        this.objects.faults.length = 0;
        return;
      case 'moment': {
        for (let objects = 0; ; objects++) {
          const outcome = await this.#shipOne();
          if (outcome instanceof ChainNotBegun) return;
          if (outcome === undefined) break;
          if (objects === OBJECTS_MAX) throw new Error('there is always more to ship');
        }
        const atMs = this.#shipper?.position?.timeMs ?? 0;
        this.moments.push({ atMs, world: this.world.fork() });
        this.world.clock.advance(1_000);
        return;
      }
      case 'other shipper':
        this.#shipper = undefined;
        return;
      case 'prune': {
        const limitMs = this.moments[step.moment]?.atMs;
        if (limitMs === undefined) return;
        this.moments = this.moments.filter(({ atMs }) => atMs >= limitMs);
        const { storageId } = this.world;
        const plan = await planPrune(new ArchiveReader(this.objects, storageId), limitMs);
        const objects = plan.objects.slice(0, step.objects);
        return await prune(this.objects, storageId, { ...plan, objects });
      }
      default:
        await this.world.step(step);
    }
  }

  async #shipOne(): Promise<unknown> {
    this.#shipper ??= this.#newShipper();
    try {
      return await this.#shipper.next();
    } catch (error) {
      const isKnown = [ObjectStorageError, AppError, ChainNotBegun].some((kind) => error instanceof kind);
      if (!isKnown) throw error;
      if (this.#shipper?.isRepeatable !== true) this.#shipper = undefined;
      return error;
    }
  }

  #newShipper(): Shipper {
    const { disk, objects, world } = this;
    return new Shipper({
      disk,
      dataDir: '/',
      projectsDir: '/projects',
      storageId: world.storageId,
      storage: objects,
      clock: world.clock,
      position: new PositionStore(disk, '/', '/tmp', objects.name, world.storageId),
      roundBytes: this.#roundBytes,
      objectBytes: this.#objectBytes,
      partsBytes: this.#partsBytes,
      engine: {
        logEnd: async (from) => world.engine.logEnd(from),
        takeChanged: async () => this.#takeChanged(),
        shipped: async (segment) => {
          world.keepFrom = segment;
          world.engine.keepFrom(segment);
        },
      },
    });
  }

  #takeChanged(): string[] {
    const lines = this.disk.trace.slice(this.#traced);
    this.#traced = this.disk.trace.length;
    const changed = lines.flatMap((line) => line.match(/\/projects\/(p\d+)(?=$|\/[a-z-]+[.1])/g) ?? []);
    return [...new Set(changed.map((path) => path.slice('/projects/'.length)))];
  }
}

async function loaded(folder: string): Promise<SimulatedDisk> {
  const disk = new SimulatedDisk('/', '/projects', '/tmp');
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join('/', entry.parentPath.slice(folder.length), entry.name);
    const parents: string[] = [];
    for (let parent = entry.isDirectory() ? path : dirname(path); parent !== '/'; parent = dirname(parent))
      parents.unshift(parent);
    for (const parent of parents) await disk.makeDirectory(parent);
    if (entry.isFile()) await disk.createFile(path, await readFile(join(entry.parentPath, entry.name)));
  }
  return disk.restart();
}

/** Restores a moment, and lets the engine check it against what users knew then. */
async function requireMoment({ objects }: ArchivedWorld, atMs: number, world: EngineWorld): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'bundoc-archive-'));
  try {
    const reader = new ArchiveReader(objects, world.storageId);
    const plan = await planRestore(reader, atMs);
    expect(plan.last.timeMs).toBe(atMs);
    await restoreArchive(reader, plan, folder, { segmentBytes: SEGMENT_BYTES });
    world.boot(await loaded(folder));
    await world.until(async () => {
      await world.start();
      await world.check();
      await world.stop();
    });
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe('an archive', () => {
  it('restores every moment as it was, with lost and doubled uploads, restarts and rounds', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(archiveStep, { minLength: 6, maxLength: 30 }),
        fc.constantFrom(20_000, 200_000, 10_000_000),
        fc.constantFrom(2_000, 40_000),
        fc.constantFrom(5_000, 10_000_000),
        async (steps, roundBytes, objectBytes, partsBytes) => {
          const archived = new ArchivedWorld(roundBytes, objectBytes, partsBytes);
          const { world } = archived;
          world.boot(archived.disk);
          await world.until(async () => {
            await archived.start();
            for (const step of steps) await archived.step(step);
            await archived.step({ kind: 'moment' });
            await world.stop();
          });
          for (const { atMs, world: then } of archived.moments) await requireMoment(archived, atMs, then);
        },
      ),
      RUN,
    );
  });
});
