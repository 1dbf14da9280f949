import type { Accounts } from '@bundoc/shared/admission/account';
import { gateBytes } from '@bundoc/shared/admission/gate';
import { Pool } from '@bundoc/shared/admission/pool';
import { memoryLimit } from '@bundoc/shared/process/memory-limit';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';

/** Bounds of the process that requests share after they have passed the gate. */
export interface ServiceShares {
  /** Streams and long polls that wait for changes. */
  readonly streams: Pool;
  /** Bytes that streams hold for slow readers. The gate has as many for all other requests. */
  readonly streamBytes: Pool;
  /** Running backups. Each reads a whole project. */
  readonly backups: Pool;
  /** Running moves. Each reads a whole project, and has separate connections. */
  readonly moves: Pool;
  /** Running deletions of projects. Each calls BunKMS a few times, one call after another. */
  readonly deletions: Pool;
  /** Projects that are being opened. Each reads the storage, and asks BunKMS for a missing key. */
  readonly openings: Pool;
  /** Pages of documents and changes being read. Each may take 16 MiB, and 32 MiB while it is made. */
  readonly pageReads: Pool;
}

export const STREAMS_MAX = 2_048;
const BACKUPS_MAX = 8;
const MOVES_MAX = 4;
/** Half of the connections to BunKMS. The other half is left for calls for keys. */
const DELETIONS_MAX = 8;
const OPENINGS_MAX = 32;
const PAGE_READS_MAX = 8;

export function createServiceShares(clock: Clock = systemClock, accounts?: Accounts): ServiceShares {
  const common = accounts === undefined ? { clock } : { clock, accounts };
  /** For long use: a subject has at most a quarter, a project an eighth. Nobody waits. */
  const long = (name: string, capacity: number) =>
    new Pool({
      ...common,
      name,
      capacity,
      waitMs: 0,
      subjectMax: Math.max(1, Math.floor(capacity / 4)),
      projectMax: Math.max(1, Math.floor(capacity / 8)),
    });
  /** For short work: requests wait, and a subject has at most the part `ofSubject`. */
  const short = (name: string, capacity: number, ofSubject: number, beyond = 0) =>
    new Pool({
      ...common,
      name,
      capacity,
      subjectMax: capacity * ofSubject,
      beyond: { ofSubject: beyond, ofProject: 0 },
    });
  return {
    streams: long('streams', STREAMS_MAX),
    streamBytes: long('stream bytes', gateBytes(memoryLimit())),
    backups: long('backups', BACKUPS_MAX),
    moves: long('moves', MOVES_MAX),
    // Few for one subject, so that it does not fill the queues of BunKMS and of the storage.
    deletions: short('deletions', DELETIONS_MAX, 1 / 4),
    // BunKMS may stall while one subject has all openings. Further subjects may go beyond the capacity.
    openings: short('project openings', OPENINGS_MAX, 1, 2),
    // A page that waits for the processor keeps its place.
    pageReads: short('page reads', PAGE_READS_MAX, 1 / 2),
  };
}
