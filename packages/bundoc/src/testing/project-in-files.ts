import { createSecretKey, randomBytes } from 'node:crypto';
import { dirname } from 'node:path';
import { defined } from '@bundoc/shared/contract/defined';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { type DekVersion, ProjectCipher } from '../crypto/project-cipher.ts';
import type { Quota } from '../engine/commit/quota.ts';
import type { Disk } from '../engine/files/disk/disk.ts';
import { createSealedCache, type SealedCache } from '../engine/files/documents/sealed-cache.ts';
import type { FilesEngine } from '../engine/files/files-engine.ts';
import { KeptMemory } from '../engine/files/snapshots/kept-memory.ts';
import type { Later } from '../engine/files/snapshots/project-snapshots.ts';
import type { FileStore } from '../engine/files/store/file-store.ts';
import { positionAt } from '../engine/port/positions.ts';
import { SEAL_LIMITS, type SealLimits } from '../engine/port/seal-budget.ts';
import { ownWork } from '../work/scheduler.ts';
import type { OwnWork } from '../work/work.ts';
import { SimulatedDisk } from './simulated-disk.ts';
import { type EngineLimits, engineOn, SMALL_LIMITS } from './test-engine.ts';

const PROJECT_FILE = Buffer.from('{"project":"p"}');

/** A project of the files engine in a test: its place, and the keys that open it. */
export class ProjectInFiles {
  readonly #nameKey = createSecretKey(randomBytes(32));
  #versions: [DekVersion, ...DekVersion[]] = [{ version: 1, dek: createSecretKey(randomBytes(32)) }];
  cipher = new ProjectCipher('p', this.#versions, this.#nameKey);
  readonly damaged: string[] = [];
  readonly failures: unknown[] = [];
  readonly rotationsDue: number[] = [];
  readonly clock: Clock;
  readonly directory: string;
  readonly limits: EngineLimits;
  readonly sealLimits: SealLimits;
  readonly quota: Quota | undefined;
  /** The last take-over of the storage. */
  takenOverMs = 0;
  readonly #backlogBytesMax: number | undefined;
  readonly #ownWork: OwnWork;
  readonly #keptMemory: KeptMemory;
  readonly #retainLater: Later | undefined;
  readonly #catalogLimits: { readonly tombstonesMax?: number; readonly catalogBytesMax?: number };

  constructor(
    options: {
      directory?: string;
      clock?: Clock;
      limits?: EngineLimits;
      sealLimits?: SealLimits;
      backlogBytesMax?: number;
      quota?: Quota;
      ownWork?: OwnWork;
      keptMemory?: KeptMemory;
      retainLater?: Later;
      tombstonesMax?: number;
      catalogBytesMax?: number;
    } = {},
  ) {
    this.#backlogBytesMax = options.backlogBytesMax;
    this.quota = options.quota;
    this.#catalogLimits = options;
    this.#ownWork = options.ownWork ?? ownWork('p');
    this.#keptMemory = options.keptMemory ?? new KeptMemory();
    this.#retainLater = options.retainLater;
    this.directory = options.directory ?? '/p';
    this.clock = options.clock ?? new FakeClock();
    this.limits = options.limits ?? SMALL_LIMITS;
    this.sealLimits = options.sealLimits ?? SEAL_LIMITS;
  }

  /** Creates a new current version of the DEK; former ones stay live. The store must be opened again. */
  rotate(): void {
    const version = this.#versions[0].version + 1;
    this.#versions = [{ version, dek: createSecretKey(randomBytes(32)) }, ...this.#versions];
    this.cipher = new ProjectCipher('p', this.#versions, this.#nameKey);
  }

  /** Only the current version is left. */
  forgetFormerVersions(): void {
    this.#versions = [this.#versions[0]];
    this.cipher = new ProjectCipher('p', this.#versions, this.#nameKey);
  }

  /** An empty simulated disk. */
  static disk(): SimulatedDisk {
    return new SimulatedDisk('/');
  }

  engine(disk: Disk): Promise<FilesEngine> {
    const parent = dirname(this.directory);
    return engineOn(disk, {
      dataDir: parent,
      projectsDir: parent,
      clock: this.clock,
      limits: this.limits,
      ...defined({ backlogBytesMax: this.#backlogBytesMax }),
    });
  }

  async create(disk: Disk): Promise<void> {
    const engine = await this.engine(disk);
    await engine.create('p', this.cipher, PROJECT_FILE);
  }

  async open(disk: Disk, cache: number | SealedCache = 0): Promise<FileStore> {
    const engine = await this.engine(disk);
    return engine.openStore({
      project: 'p',
      directory: this.directory,
      projectFile: PROJECT_FILE,
      disk,
      cipher: this.cipher,
      clock: this.clock,
      cache: typeof cache === 'number' ? createSealedCache(cache) : cache,
      onIntegrityError: (fileName) => this.damaged.push(fileName),
      onFailure: (error) => this.failures.push(error),
      onRotationDue: (version) => this.rotationsDue.push(version),
      ownWork: this.#ownWork,
      keptMemory: this.#keptMemory,
      retainLater: this.#retainLater,
      sealLimits: this.sealLimits,
      positionFloor: () => positionAt(this.takenOverMs),
      quota: this.quota,
      tombstonesMax: this.#catalogLimits.tombstonesMax,
      catalogBytesMax: this.#catalogLimits.catalogBytesMax,
    });
  }
}
