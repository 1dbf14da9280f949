import { createSecretKey, randomBytes } from 'node:crypto';
import type { Clock } from '@bundoc/shared/clock';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { type DekVersion, ProjectCipher } from '../cipher/project-cipher.ts';
import { Backlog } from '../storage/embedded/backlog.ts';
import type { EmbeddedLimits } from '../storage/embedded/checkpoints.ts';
import type { Disk } from '../storage/embedded/disk.ts';
import type { EmbeddedStore } from '../storage/embedded/embedded-store.ts';
import { createEmbeddedStore, openEmbeddedStore } from '../storage/embedded/recovery.ts';
import { SEAL_LIMITS, type SealLimits } from '../storage/embedded/seal-budget.ts';
import { createSealedCache, type SealedCache } from '../storage/embedded/sealed-cache.ts';
import type { Quota } from '../storage/quota.ts';
import { SimulatedDisk } from './simulated-disk.ts';

/** Small enough that a short history fills segments and begins checkpoints by itself. */
export const SMALL_LIMITS: EmbeddedLimits = {
  segmentBytes: 4_096,
  checkpointBytes: 16_384,
};

const SMALL_BACKLOG_BYTES_MAX = 8_192;

/** Opens a store for a test that looks at other things. */
export function openTestStore(
  project: string,
  directory: string,
  disk: Disk,
  cipher: ProjectCipher,
  clock: Clock,
): Promise<EmbeddedStore> {
  return openEmbeddedStore({
    project,
    directory,
    disk,
    cipher,
    clock,
    cache: createSealedCache(0),
    backlog: new Backlog(SMALL_BACKLOG_BYTES_MAX),
    onIntegrityError: () => undefined,
    onFailure: () => undefined,
    onRotationDue: () => undefined,
    sealLimits: SEAL_LIMITS,
    limits: SMALL_LIMITS,
  });
}

/** A project of the embedded engine in a test: where it lies, and what opens it. */
export class EmbeddedProject {
  readonly #nameKey = createSecretKey(randomBytes(32));
  #versions: [DekVersion, ...DekVersion[]] = [{ version: 1, dek: createSecretKey(randomBytes(32)) }];
  cipher = new ProjectCipher('p', this.#versions, this.#nameKey);
  readonly damaged: string[] = [];
  readonly failures: unknown[] = [];
  readonly rotationsDue: number[] = [];
  readonly clock: Clock;
  readonly directory: string;
  readonly limits: EmbeddedLimits;
  readonly sealLimits: SealLimits;
  readonly quota: Quota | undefined;
  readonly #backlogBytesMax: number;

  constructor(
    options: {
      directory?: string;
      clock?: Clock;
      limits?: EmbeddedLimits;
      sealLimits?: SealLimits;
      backlogBytesMax?: number;
      quota?: Quota;
    } = {},
  ) {
    this.#backlogBytesMax = options.backlogBytesMax ?? SMALL_BACKLOG_BYTES_MAX;
    this.quota = options.quota;
    this.directory = options.directory ?? '/p';
    this.clock = options.clock ?? new FakeClock();
    this.limits = options.limits ?? SMALL_LIMITS;
    this.sealLimits = options.sealLimits ?? SEAL_LIMITS;
  }

  /** Makes a new version of the DEK the current one; the former stay live. The store must be opened anew. */
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

  /** An empty simulated disk with the project's folder. */
  static disk(): SimulatedDisk {
    return new SimulatedDisk('/', '/p', '/p/tmp');
  }

  create(disk: Disk): Promise<void> {
    return createEmbeddedStore({ project: 'p', directory: this.directory, disk, cipher: this.cipher });
  }

  open(disk: Disk, cache: number | SealedCache = 0): Promise<EmbeddedStore> {
    return openEmbeddedStore({
      project: 'p',
      directory: this.directory,
      disk,
      cipher: this.cipher,
      clock: this.clock,
      cache: typeof cache === 'number' ? createSealedCache(cache) : cache,
      backlog: new Backlog(this.#backlogBytesMax),
      onIntegrityError: (fileName) => this.damaged.push(fileName),
      onFailure: (error) => this.failures.push(error),
      onRotationDue: (version) => this.rotationsDue.push(version),
      sealLimits: this.sealLimits,
      limits: this.limits,
      quota: this.quota,
    });
  }
}
