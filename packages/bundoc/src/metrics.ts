import { counter, createServiceMetrics, gauge, type ServiceMetrics } from '@bundoc/shared/metrics/metrics';
import { Counter } from '@prometheus-io/client';
import { FETCH_OUTCOMES, type FetchOutcome } from './crypto/key-cache.ts';
import { documentCounts } from './crypto/project-cipher.ts';
import type { StorageCount } from './engine/storage-engine.ts';
import type { Scheduler } from './work/scheduler.ts';
import { WORK_KINDS } from './work/work.ts';

const SERVICE_GAUGES = {
  workWaiting: ['bundoc_work_waiting', 'Long work that waits for a slice of the event loop.'],
  largeWorkWaiting: ['bundoc_large_work_waiting', 'Jobs that wait for the thread for large documents.'],
  storageSuperseded: [
    'bundoc_storage_superseded',
    '1 while nothing is served because another copy of this storage is in use.',
  ],
  changeFollowers: ['bundoc_change_followers', 'Streams and long polls that wait for changes.'],
  eventsLive: ['bundoc_kms_events_live', '1 while events arrive from BunKMS.'],
  tokensRevoked: ['bundoc_tokens_revoked', 'Revoked tokens that are refused.'],
  receiptSeq: [
    'bundoc_kms_receipt_seq',
    "The newest record of BunKMS's audit chain that Bundoc has a receipt of.",
  ],
  clockSkewS: [
    'bundoc_kms_clock_skew_seconds',
    "Seconds by which BunKMS's clock is ahead of Bundoc's; negative if it is behind.",
  ],
  tokenExpiryS: [
    'bundoc_kms_token_expiry_timestamp_seconds',
    'When the service token for BunKMS ends, seconds since 1970.',
  ],
  projectsOpen: ['bundoc_projects_open', 'Projects that are open.'],
  openBytes: [
    'bundoc_open_bytes',
    'Bytes of memory that open projects are taken to need; the memory limit bounds them.',
  ],
  openingsWaiting: [
    'bundoc_openings_waiting',
    'Requests for projects that are not open and wait for room or for their turn.',
  ],
  keysCached: ['bundoc_keys_cached', 'Data encryption keys in memory.'],
  keyFetchesWaiting: [
    'bundoc_key_fetches_waiting',
    'Keys that wait to be fetched again from BunKMS in the background.',
  ],
  pendingReencryption: [
    'bundoc_documents_pending_reencryption',
    'Documents of open projects that are sealed under a former key version.',
  ],
} as const satisfies Readonly<Record<string, readonly [name: string, help: string]>>;

type Observed = keyof typeof SERVICE_GAUGES;

/** The values read on each scrape: those of the service and of the storage. */
type Observations = Readonly<Record<Observed, () => number> & Partial<Record<StorageCount, () => number>>>;

const STORAGE_COUNTS: Readonly<Record<StorageCount, readonly [name: string, help: string]>> = {
  lostProjects: [
    'bundoc_lost_projects',
    'Projects that are refused because a copy of the storage without them took over.',
  ],
  backlogBytes: [
    'bundoc_backlog_bytes',
    'Sealed documents that are durable in the log and wait for their files, in bytes.',
  ],
  snapshotBytes: [
    'bundoc_snapshot_bytes',
    'Bytes of superseded documents that are kept for answers in progress and for their later pages.',
  ],
  snapshotsDropped: [
    'bundoc_snapshots_dropped_total',
    'States that were given up because they kept too much. Their answers were snapshot_too_old.',
  ],
  logSegmentsLive: ['bundoc_log_segments_live', 'Segments of the log that hold commits.'],
  logSegmentsFree: ['bundoc_log_segments_free', 'Segments of the log that are free.'],
  logUncoveredBytes: [
    'bundoc_log_uncovered_bytes',
    'Bytes of commits that are in the log and in no catalog yet. The log keeps them.',
  ],
  logFrames: ['bundoc_log_frames_total', 'Frames written to the log. Each is one write and one sync.'],
  logCommits: ['bundoc_log_commits_total', 'Commits in the frames that were written.'],
  logSyncSeconds: ['bundoc_log_sync_seconds_total', 'Time spent writing and syncing frames, in seconds.'],
  logCarries: [
    'bundoc_log_carried_files_total',
    'Files of sealed parts that were copied from the log to project folders without a key.',
  ],
  logCuts: [
    'bundoc_log_write_failures_total',
    'Failed writes to the log. After each, the log continues in another segment.',
  ],
  logStuckHandles: [
    'bundoc_log_stuck_projects',
    'Projects whose folder failed while the log was freed. Their commits are in log/stuck.',
  ],
  logSuspects: ['bundoc_log_suspect_frames', 'Frames of the log that were damaged at the last start.'],
  logHoles: [
    'bundoc_log_holes',
    '1 while frames are lost and it is unknown which projects had commits there.',
  ],
  logWritesStopped: ['bundoc_log_writes_stopped', '1 while the log cannot be written.'],
  archiveAgeS: [
    'bundoc_archive_age_seconds',
    'Seconds since the archive last had everything: writes before that are in it.',
  ],
  archiveRoundAgeS: [
    'bundoc_archive_round_age_seconds',
    'Seconds since the newest complete round of the archive began.',
  ],
  archiveDrillAgeS: [
    'bundoc_archive_drill_age_seconds',
    'Seconds since "bundoc archive drill" last found everything, as the data folder notes it.',
  ],
  archiveObjects: ['bundoc_archive_objects_total', 'Objects shipped to the archive.'],
  archiveFailures: ['bundoc_archive_failures_total', 'Failed attempts to ship to the archive.'],
  archiveChains: [
    'bundoc_archive_chains_total',
    'Chains that were begun because the former one could not be continued.',
  ],
  archiveFailedBases: [
    'bundoc_archive_failed_bases_total',
    'Folders of projects that could not be read for the archive. It lacks their bases.',
  ],
  archiveBasesWaiting: [
    'bundoc_archive_bases_waiting',
    'Folders of projects that are still to be read for the archive.',
  ],
  databaseConnections: ['bundoc_postgres_connections', 'Connections to PostgreSQL that are open.'],
  databaseWaiting: ['bundoc_postgres_waiting', 'Statements that wait for a connection to PostgreSQL.'],
  databaseSnapshots: [
    'bundoc_postgres_snapshots',
    'Connections to PostgreSQL that hold a state for an answer of several reads.',
  ],
  databaseSnapshotsWaiting: [
    'bundoc_postgres_snapshots_waiting',
    'Answers that wait for a connection to PostgreSQL that holds their state.',
  ],
};

/** Totals that only increase while the process runs. */
const STORAGE_TOTALS: ReadonlySet<StorageCount> = new Set<StorageCount>([
  'snapshotsDropped',
  'logFrames',
  'logCommits',
  'logSyncSeconds',
  'logCarries',
  'logCuts',
  'archiveObjects',
  'archiveFailures',
  'archiveChains',
  'archiveFailedBases',
]);

/** Bundoc's metrics. No label contains a project, collection or document. */
export interface BundocMetrics extends ServiceMetrics {
  integrityError(): void;
  keyFetch(outcome: FetchOutcome): void;
  /** Counts an unconfirmed marker of a project. */
  markSetAside(): void;
  /** Counts a request refused because its project has used up its processor time. */
  rateLimited(): void;
  /** Reads the usage of long work on each scrape. */
  observeWork(scheduler: Scheduler): void;
  /** Reads the gauges' values on each scrape. */
  observe(counts: Observations): void;
}

export function createBundocMetrics(): BundocMetrics {
  const service = createServiceMetrics('bundoc_');
  const { registry } = service;
  const integrityErrors = new Counter({
    name: 'bundoc_integrity_errors_total',
    help: 'Documents whose stored bytes did not open.',
    registers: [registry],
  });
  const keyFetches = new Counter({
    name: 'bundoc_key_fetches_total',
    help: 'Fetches of keys from BunKMS by outcome: fetched, refused (no such key, or disabled or destroyed), failed.',
    labelNames: ['outcome'],
    registers: [registry],
  });
  // An alert does not notice that a counter begins with 1.
  for (const outcome of FETCH_OUTCOMES) keyFetches.inc({ outcome }, 0);
  const marksSetAside = new Counter({
    name: 'bundoc_unconfirmed_markers_total',
    help: 'Markers of a deletion or a move that neither BunKMS nor the key of the project confirmed.',
    registers: [registry],
  });
  const rateLimited = new Counter({
    name: 'bundoc_rate_limited_requests_total',
    help: 'Requests that were refused because their project has used up its processor time.',
    registers: [registry],
  });
  counter(
    registry,
    'bundoc_documents_sealed_total',
    'Documents that were sealed under the key of their project.',
    () => documentCounts.sealed,
  );
  counter(
    registry,
    'bundoc_documents_opened_total',
    'Sealed documents that were opened, or did not open.',
    () => documentCounts.opened,
  );
  return {
    ...service,
    integrityError: () => integrityErrors.inc(),
    keyFetch: (outcome) => keyFetches.inc({ outcome }),
    markSetAside: () => marksSetAside.inc(),
    rateLimited: () => rateLimited.inc(),
    observeWork: (scheduler) => {
      new Counter({
        name: 'bundoc_work_seconds_total',
        help: 'Time that long work took on the threads of the process, by kind, in seconds.',
        labelNames: ['kind'],
        registers: [registry],
        collect() {
          this.reset();
          for (const kind of WORK_KINDS) this.inc({ kind }, scheduler.usedS(kind));
        },
      });
      counter(
        registry,
        'bundoc_work_slices_total',
        'Slices of the event loop that long work waited for and was given.',
        () => scheduler.slices,
      );
    },
    observe: (observed) => {
      for (const [name, [metric, help]] of Object.entries(SERVICE_GAUGES))
        gauge(registry, metric, help, observed[name as Observed]);
      for (const [name, [metric, help]] of Object.entries(STORAGE_COUNTS)) {
        const count = name as StorageCount;
        const read = observed[count];
        const register = STORAGE_TOTALS.has(count) ? counter : gauge;
        if (read !== undefined) register(registry, metric, help, read);
      }
    },
  };
}
