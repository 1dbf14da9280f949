import { defaultRoomBytes } from '@bundoc/shared/http/http-shares';
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

/** What the requests of a process share beside bodies, answers and connections. */
export interface ServiceShares {
  /** Streams and long polls that wait for changes. */
  readonly streams: Share;
  /** Bytes that streams hold for readers that have not taken them. */
  readonly streamBytes: Share;
  /** Backups that are made. Each reads the whole of a project. */
  readonly backups: Share;
  /** Moves that are under way. Each reads the whole of a project, and has connections of its own. */
  readonly moves: Share;
  /** Projects that are looked up. Each asks the storage, and the key service for a missing key. */
  readonly lookups: Share;
  /** Projects whose stores are opened. */
  readonly openings: Share;
  /** Pages of documents and changes that are read. Each may take 16 MiB, and twice that while it is made. */
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

const LOOKUPS_MAX = 100;
const PAGE_READS_MAX = 8;

export function createServiceShares(
  sizes: Partial<ServiceShareSizes> = {},
  clock: Clock = systemClock,
): ServiceShares {
  const { streams, backups, moves, openings, keyFetches } = { ...SERVICE_SHARE_DEFAULTS, ...sizes };
  const { streamBytes = defaultRoomBytes() } = sizes;
  /** Of what is held for long: a quarter for a subject, an eighth for a project, and no wait. */
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
    lookups: short('project lookups', LOOKUPS_MAX),
    // A page that waits for the processor keeps its place: other subjects find some in any case.
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
