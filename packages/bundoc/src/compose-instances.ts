import { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { BundocConfig } from './config.ts';
import { KeyCache } from './crypto/key-cache.ts';
import type { StorageGeneration } from './engine/identity/storage-generation.ts';
import type { SettleMove } from './engine/moves/judge-move-mark.ts';
import type { OnSetAside } from './engine/moves/set-aside.ts';
import { positionAt } from './engine/port/positions.ts';
import { unknownSealers } from './engine/projects/project-file.ts';
import type { Projects } from './engine/projects/projects.ts';
import type { StorageEngine, StoreWatch } from './engine/storage-engine.ts';
import type { OutsideKeys } from './kms/outside-keys.ts';
import type { StorageKeys } from './kms/storage-keys.ts';
import type { BundocMetrics } from './metrics.ts';
import { InstanceManager } from './projects/instance-manager.ts';
import { SpreadRotations } from './projects/spread-rotations.ts';
import type { Scheduler } from './work/scheduler.ts';
import type { ServiceShares } from './work/service-shares.ts';
import type { OwnWork } from './work/work.ts';

/** The dependencies of the open projects. */
export interface Composition {
  readonly config: BundocConfig;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: BundocMetrics;
  readonly storage: StorageEngine;
  readonly service: StorageKeys;
  readonly outside: OutsideKeys;
  readonly generation: StorageGeneration;
  readonly onSetAside: OnSetAside;
  readonly settle: SettleMove;
  readonly scheduler: Scheduler;
  readonly shares: ServiceShares;
}

export function composeInstances(composition: Composition): {
  keys: KeyCache;
  projects: Projects;
  instances: InstanceManager;
  rotations: SpreadRotations;
} {
  const { config, clock, logger, metrics, storage, service, generation, onSetAside, settle } = composition;
  const { scheduler, shares, outside } = composition;
  const keys = new KeyCache({
    keys: service,
    outside,
    clock,
    ttlMs: config.keyTtlMs,
    onFetch: metrics.keyFetch,
  });
  const rotations = new SpreadRotations({
    clock,
    logger,
    rotate: (project, version) => keys.rotate(project, version),
  });
  const ownWork =
    (project: string): OwnWork =>
    (kind) =>
      scheduler.background(project, kind);
  const watch = (project: string): StoreWatch => ({
    ownWork: ownWork(project),
    positionFloor: () => positionAt(generation.takenOverMs),
    onRotationDue: (version) => rotations.due(project, version),
    onIntegrityError: (file) => {
      metrics.integrityError();
      // With an error, the log counts repetitions: anyone may read the document again and again.
      logger.error({ project, file, err: new AppError('integrity_error') }, 'a document file does not open');
    },
    onFailure: (error) => logger.error({ project, err: error }, 'the storage of a project failed'),
  });
  const projects = storage.projects(keys, generation, onSetAside, settle);
  const instances = new InstanceManager({
    projects,
    keys,
    clock,
    logger,
    requireServed: () => void generation.acting(),
    openStore: (project, opened) => {
      const { cipher, file } = opened;
      return storage.openStore(
        project,
        opened,
        watch(project),
        unknownSealers(file, cipher.version, generation),
      );
    },
    isShared: storage.isShared,
    openBytesMax: config.openBytes,
    shares,
    ...defined({ storedBytes: storage.storedBytes }),
    expiry: storage.expiry,
    ownWork,
  });
  return { keys, projects, instances, rotations };
}
