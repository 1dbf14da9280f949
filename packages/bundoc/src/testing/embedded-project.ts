import { createSecretKey, randomBytes } from 'node:crypto';
import type { Clock } from '@bundoc/shared/clock';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { ProjectCipher } from '../cipher/project-cipher.ts';
import type { Disk } from '../storage/embedded/disk.ts';
import type { EmbeddedLimits, EmbeddedStore } from '../storage/embedded/embedded-store.ts';
import { createEmbeddedStore, openEmbeddedStore } from '../storage/embedded/recovery.ts';
import { createSealedCache, type SealedCache } from '../storage/embedded/sealed-cache.ts';
import { SimulatedDisk } from './simulated-disk.ts';

/** Small enough that a short history fills segments and begins checkpoints by itself. */
export const SMALL_LIMITS: EmbeddedLimits = {
  segmentBytes: 4_096,
  checkpointBytes: 16_384,
  backlogBytesMax: 8_192,
};

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
    onIntegrityError: () => undefined,
    onFailure: () => undefined,
    limits: SMALL_LIMITS,
  });
}

/** A project of the embedded engine in a test: where it lies, and what opens it. */
export class EmbeddedProject {
  readonly cipher = new ProjectCipher(
    'p',
    1,
    createSecretKey(randomBytes(32)),
    createSecretKey(randomBytes(32)),
  );
  readonly damaged: string[] = [];
  readonly failures: unknown[] = [];
  readonly clock: Clock;
  readonly directory: string;
  readonly limits: EmbeddedLimits;

  constructor(options: { directory?: string; clock?: Clock; limits?: EmbeddedLimits } = {}) {
    this.directory = options.directory ?? '/p';
    this.clock = options.clock ?? new FakeClock();
    this.limits = options.limits ?? SMALL_LIMITS;
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
      onIntegrityError: (fileName) => this.damaged.push(fileName),
      onFailure: (error) => this.failures.push(error),
      limits: this.limits,
    });
  }
}
