import { roomBytes } from '@bundoc/shared/http/http-shares';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { Share } from '@bundoc/shared/shares/share';

/** Settings of {@link ServiceShares}. */
export interface ServiceShareSizes {
  readonly streams: number;
  readonly streamBytes: number;
  readonly backups: number;
  readonly moves: number;
  readonly openings: number;
  readonly keyFetches: number;
}

/** The shared limits of a process, besides those of bodies, answers and connections. */
export interface ServiceShares {
  /** Streams and long polls that wait for changes. */
  readonly streams: Share;
  /** Bytes that streams hold for slow readers. */
  readonly streamBytes: Share;
  /** Running backups. Each reads a whole project. */
  readonly backups: Share;
  /** Running moves. Each reads a whole project, and has separate connections. */
  readonly moves: Share;
  /** Deletions of projects in progress. Each makes some calls to BunKMS, one after another. */
  readonly deletions: Share;
  /** Lookups of projects. Each asks the storage, and the key service for a missing key. */
  readonly lookups: Share;
  /** Projects whose stores are being opened. */
  readonly openings: Share;
  /** Pages of documents and changes being read. Each may take 16 MiB, and twice that while it is made. */
  readonly pageReads: Share;
  /** Calls to BunKMS for keys. */
  readonly keyFetches: Share;
}

export const SERVICE_SHARE_DEFAULTS = {
  streams: 2_048,
  backups: 8,
  moves: 4,
  openings: 16,
  keyFetches: 32,
} as const;

/** Default bytes that streams hold for slow readers. */
export function defaultStreamBytes(limitBytes?: number): number {
  return roomBytes(256 * 1_048_576, limitBytes);
}

const LOOKUPS_MAX = 100;
const PAGE_READS_MAX = 8;
/** Half of the connections to BunKMS, so that calls for keys have the others. */
const DELETIONS_MAX = 8;

export function createServiceShares(
  sizes: Partial<ServiceShareSizes> = {},
  clock: Clock = systemClock,
): ServiceShares {
  const { streams, backups, moves, openings, keyFetches } = { ...SERVICE_SHARE_DEFAULTS, ...sizes };
  const { streamBytes = defaultStreamBytes() } = sizes;
  /** For long use: a quarter for a subject, an eighth for a project, without waiting. */
  const long = (name: string, capacity: number) =>
    new Share({
      ...{ name, capacity, clock, waitMs: 0 },
      subjectMax: Math.max(1, Math.floor(capacity / 4)),
      projectMax: Math.max(1, Math.floor(capacity / 8)),
    });
  /** For short work: the next in the queue gets the next place. */
  const short = (name: string, capacity: number) => new Share({ name, capacity, clock });
  return {
    streams: long('streams', streams),
    streamBytes: long('stream bytes', streamBytes),
    backups: long('backups', backups),
    moves: long('moves', moves),
    // So few of one subject that it does not fill the queues of BunKMS and of the storage.
    deletions: new Share({
      name: 'deletions',
      capacity: DELETIONS_MAX,
      subjectMax: DELETIONS_MAX / 4,
      clock,
    }),
    lookups: short('project lookups', LOOKUPS_MAX),
    // A page that waits for the processor keeps its place; the shares leave places for other subjects.
    pageReads: new Share({
      name: 'page reads',
      capacity: PAGE_READS_MAX,
      subjectMax: PAGE_READS_MAX / 2,
      clock,
    }),
    openings: short('project openings', openings),
    keyFetches: short('key fetches', keyFetches),
  };
}
