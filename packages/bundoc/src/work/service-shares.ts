import type { Accounts } from '@bundoc/shared/admission/account';
import { gateBytes } from '@bundoc/shared/admission/gate';
import { Pool } from '@bundoc/shared/admission/pool';
import { memoryLimit } from '@bundoc/shared/process/memory-limit';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';

/** The bounds of a process that requests share once they are inside the gate. */
export interface ServiceShares {
  /** Streams and long polls that wait for changes. */
  readonly streams: Pool;
  /** Bytes that streams hold for slow readers, as many as the gate has for all other requests. */
  readonly streamBytes: Pool;
  /** Running backups. Each reads a whole project. */
  readonly backups: Pool;
  /** Running moves. Each reads a whole project, and has separate connections. */
  readonly moves: Pool;
  /** Deletions of projects in progress. Each makes some calls to BunKMS, one after another. */
  readonly deletions: Pool;
  /** Projects that are looked up and opened. Each asks the storage, and BunKMS for a missing key. */
  readonly openings: Pool;
  /** Pages of documents and changes being read. Each may take 16 MiB, and twice that while it is made. */
  readonly pageReads: Pool;
}

export const STREAMS_MAX = 2_048;
const BACKUPS_MAX = 8;
const MOVES_MAX = 4;
/** Half of the connections to BunKMS, so that calls for keys have the others. */
const DELETIONS_MAX = 8;
const OPENINGS_MAX = 32;
const PAGE_READS_MAX = 8;

export function createServiceShares(clock: Clock = systemClock, accounts?: Accounts): ServiceShares {
  const common = accounts === undefined ? { clock } : { clock, accounts };
  /** For long use: a quarter for a subject, an eighth for a project, without waiting. */
  const long = (name: string, capacity: number) =>
    new Pool({
      ...{ ...common, name, capacity, waitMs: 0 },
      subjectMax: Math.max(1, Math.floor(capacity / 4)),
      projectMax: Math.max(1, Math.floor(capacity / 8)),
    });
  /** For short work: requests wait, and a subject has at most a part. */
  const short = (name: string, capacity: number, ofSubject: number, beyond = 0) =>
    new Pool({
      ...{ ...common, name, capacity, subjectMax: capacity * ofSubject },
      beyond: { ofSubject: beyond, ofProject: 0 },
    });
  return {
    streams: long('streams', STREAMS_MAX),
    streamBytes: long('stream bytes', gateBytes(memoryLimit())),
    backups: long('backups', BACKUPS_MAX),
    moves: long('moves', MOVES_MAX),
    // So few of one subject that it does not fill the queues of BunKMS and of the storage.
    deletions: short('deletions', DELETIONS_MAX, 1 / 4),
    // BunKMS may stall: each further subject gets a place beyond them.
    openings: short('project openings', OPENINGS_MAX, 1, 2),
    // A page that waits for the processor keeps its place.
    pageReads: short('page reads', PAGE_READS_MAX, 1 / 2),
  };
}
