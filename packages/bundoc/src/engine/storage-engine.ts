import type { Logger } from '@bundoc/shared/logs/logger';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { KeyCache } from '../crypto/key-cache.ts';
import type { ReceiptStore } from '../kms/receipt-store.ts';
import type { OwnWork } from '../work/work.ts';
import type { Quota } from './commit/quota.ts';
import type { StorageIdentity } from './identity/storage-file.ts';
import type { LostProjects } from './lost-projects.ts';
import type { SettleMove } from './moves/judge-move-mark.ts';
import type { OnSetAside } from './moves/set-aside.ts';
import type { MoveSource, UsedProjects } from './moves/transfer-port.ts';
import type { Position, ProjectStore } from './port/port.ts';
import type { UnknownSealers } from './port/seal-budget.ts';
import type { ExpiryMarks } from './projects/expiry-marks.ts';
import type { TakenOver } from './projects/project-file.ts';
import type { OpenedProject, Projects } from './projects/projects.ts';

export interface EngineDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  /** The quota of each project. */
  readonly quota?: Quota | undefined;
}

/** What a store needs from the service. */
export interface StoreWatch {
  readonly ownWork: OwnWork;
  /** The position of the last take-over of the storage. */
  readonly positionFloor: () => Position;
  /** A document is undecryptable; its opaque name. */
  readonly onIntegrityError: (name: string) => void;
  /** The store must be reopened. */
  readonly onFailure: (error: unknown) => void;
  /** The key version has sealed so much that it should be rotated. */
  readonly onRotationDue: (version: number) => void;
}

/** A storage as the composition root uses it. */
export interface StorageEngine extends AsyncDisposable {
  /** Its name in the log. */
  readonly place: string;
  readonly identity: StorageIdentity;
  /** The receipts of BunKMS. */
  readonly receipts: ReceiptStore;
  /** Projects that an older copy of the storage lacks. */
  readonly lost: LostProjects;
  /** Whether other processes write to it as well. */
  readonly isShared: boolean;
  /** Its gauges for the metrics. */
  readonly counts: Readonly<Partial<Record<StorageCount, () => number>>>;
  /** Whether it accepts writes. Never rejects. */
  isReady(): Promise<boolean>;
  /** @param storage this one. @param settle finishes an interrupted move out of it. */
  projects(keys: KeyCache, storage: TakenOver, onSetAside: OnSetAside, settle: SettleMove): Projects;
  /**
   * On a shared storage: lets all projects continue after a position, durably. Elsewhere each open project
   * reads {@link StoreWatch.positionFloor}.
   */
  readonly skipPositions?: (to: Position) => Promise<void>;
  readonly expiry: ExpiryMarks;
  /** @param unknownSealers under the current version of the key. */
  openStore(
    project: string,
    opened: OpenedProject,
    watch: StoreWatch,
    unknownSealers: UnknownSealers,
  ): Promise<ProjectStore>;
  /**
   * On a shared storage: the definitions and indexes of these open projects, as `definitionsState`. One
   * statement for all of them.
   */
  readonly statesOf?: (projects: readonly string[]) => Promise<ReadonlyMap<string, string>>;
  /** Estimated memory of an open project from its stored bytes, where the storage knows them. */
  readonly storedBytes?: (project: string, entries?: readonly string[]) => Promise<number>;
  /** A project that this process moves away; absent on a shared storage. */
  readonly moveSource?: (project: string, instances: UsedProjects) => MoveSource;
}

export type StorageCount =
  | 'lostProjects'
  | 'backlogBytes'
  | 'snapshotBytes'
  | 'snapshotsDropped'
  | 'databaseConnections'
  | 'databaseWaiting'
  | 'databaseSnapshots'
  | 'databaseSnapshotsWaiting'
  | 'archiveAgeS'
  | 'archiveRoundAgeS'
  | 'archiveDrillAgeS'
  | 'archiveObjects'
  | 'archiveFailures'
  | 'archiveChains'
  | 'archiveFailedBases'
  | 'archiveBasesWaiting'
  | keyof LogCounts;

/** Gauges of a data folder's log. */
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
