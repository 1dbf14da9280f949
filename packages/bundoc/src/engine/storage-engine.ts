import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Logger } from '@bundoc/shared/runtime/logger';
import type { KeyCache } from '../crypto/key-cache.ts';
import type { OwnWork } from '../work/work.ts';
import type { ExpiryMarks } from './expiry-marks.ts';
import type { SettleMove } from './judge-move-mark.ts';
import type { ProjectStore } from './port.ts';
import type { TakenOver } from './project-file.ts';
import type { OpenedProject, Projects } from './projects.ts';
import type { Quota } from './quota.ts';
import type { UnknownSealers } from './seal-budget.ts';
import type { OnSetAside } from './set-aside.ts';
import type { StorageIdentity } from './storage-file.ts';
import type { MoveSource, UsedProjects } from './transfer-port.ts';

export interface EngineDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Of each project. */
  readonly quota?: Quota | undefined;
}

/** Events of a store, and the work that the service does for it. */
export interface StoreWatch {
  readonly ownWork: OwnWork;
  /** A document does not open; by its (opaque) name. */
  readonly onIntegrityError: (name: string) => void;
  /** The store must be opened again. */
  readonly onFailure: (error: unknown) => void;
  /** The key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
}

/** A storage as the composition root uses it. */
export interface StorageEngine extends AsyncDisposable {
  /** What the log calls it. */
  readonly place: string;
  readonly identity: StorageIdentity;
  /** Whether other processes write to it as well. */
  readonly isShared: boolean;
  /** What it counts, for the metrics. */
  readonly counts: Readonly<Partial<Record<StorageCount, () => number>>>;
  /** Whether it takes writes now. Never rejects. */
  isReady(): Promise<boolean>;
  /** @param storage this one. @param settle ends a move out of it that was cut short. */
  projects(keys: KeyCache, storage: TakenOver, onSetAside: OnSetAside, settle: SettleMove): Projects;
  readonly expiry: ExpiryMarks;
  /** @param unknownSealers under the current version of the key. */
  openStore(
    project: string,
    opened: OpenedProject,
    watch: StoreWatch,
    unknownSealers: UnknownSealers,
  ): Promise<ProjectStore>;
  /**
   * Where others write to it: what definitions and indexes each open project has, as `definitionsState`. One
   * statement for all.
   */
  readonly statesOf?: (projects: readonly string[]) => Promise<ReadonlyMap<string, string>>;
  /** Stored bytes of what an open project has in memory, where the storage knows them. */
  readonly storedBytes?: (project: string, entries?: readonly string[]) => Promise<number>;
  /** A project that this process moves away; absent where other processes have it in use, too. */
  readonly moveSource?: (project: string, instances: UsedProjects) => MoveSource;
}

export type StorageCount = 'backlogBytes' | 'databaseConnections' | 'databaseWaiting' | keyof LogCounts;

/** What the log of a data folder counts. */
export interface LogCounts {
  readonly logSegmentsLive: number;
  readonly logSegmentsFree: number;
  readonly logUncoveredBytes: number;
  readonly logFrames: number;
  readonly logCommits: number;
  readonly logSyncSeconds: number;
  readonly logCarries: number;
  readonly logCuts: number;
  readonly logStuckHandles: number;
  readonly logSuspects: number;
  readonly logHoles: number;
  readonly logWritesStopped: number;
}
