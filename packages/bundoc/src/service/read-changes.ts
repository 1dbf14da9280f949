import { hasCode } from '@bundoc/shared/contract/app-error';
import type { Awaitable, Change, Position, ProjectStore, StoredDocument } from '../engine/port.ts';
import { openingUs } from '../work/opening-time.ts';
import type { Work } from '../work/work.ts';

/** Where in the feed somebody is. */
export interface FeedPlace {
  readonly position: Position;
  /** As in {@link ProjectStore.changes}. */
  readonly horizon: Position;
}

/** What somebody wants to hear of. */
export interface FeedFilter {
  /** All collections when absent. */
  readonly collection: string | undefined;
  /** Whether the documents are wanted, too. */
  readonly documents: boolean;
}

export interface FeedLimits {
  readonly limit: number;
  /** Bytes of documents after which the page ends, though one change is always in it. */
  readonly bytesMax: number;
}

export interface FeedEvent {
  readonly change: Change;
  /** The document, when it is wanted and there is one. */
  readonly text: Buffer | undefined;
  /** The document is wanted, and its stored bytes do not open. */
  readonly isUnreadable: boolean;
}

export interface FeedPage extends FeedPlace {
  readonly events: readonly FeedEvent[];
  /** True when the page ended at one of its bounds: there may be more behind it. */
  readonly more: boolean;
}

const PAGE = 1_000;
/** Changes that are looked at for a page; most may be of collections that nobody asked for. */
const SCANNED_MAX = 10_000;
/** Documents that are read at a time: at first, and at most. */
const READ_FIRST = 4;
const READ_TOGETHER_MAX = 16;

/**
 * A page of the feed. Its place goes beyond what was left out, so that anyone who wants a rare collection
 * gets on.
 *
 * A document that has changed since, while the page was made, is left out: it comes at its new place, as
 * every document comes once.
 *
 * @param work that the page is part of: others are served between any two documents.
 * @throws AppError of {@link ProjectStore.changes} and {@link ProjectStore.get}.
 */
export async function readChanges(
  store: Pick<ProjectStore, 'changes' | 'get'>,
  place: FeedPlace,
  { collection, documents }: FeedFilter,
  { limit, bytesMax }: FeedLimits,
  work: Work,
): Promise<FeedPage> {
  const isWanted = ({ ref }: Change) => collection === undefined || ref.collection === collection;
  const events: FeedEvent[] = [];
  let { position, horizon } = place;
  let bytes = 0;
  let documentsRead = 0;
  for (let scanned = 0; ; ) {
    const asked = collection === undefined ? Math.min(PAGE, limit - events.length) : PAGE;
    const page = await work.outside(() => store.changes(position, asked, horizon));
    horizon = page.horizon;
    for (let at = 0; at < page.changes.length; ) {
      // Large documents are not read beyond what the page has room for.
      const room =
        documentsRead === 0 ? READ_FIRST : ((bytesMax - bytes) * documentsRead) / Math.max(1, bytes);
      const together = Math.max(1, Math.min(READ_TOGETHER_MAX, Math.floor(room)));
      const end = documents ? at + together : page.changes.length;
      const some = page.changes.slice(at, end);
      const read = documents
        ? await eventsWithDocuments(store, some, isWanted, work)
        : some.map((change) =>
            isWanted(change) ? { change, text: undefined, isUnreadable: false } : undefined,
          );
      for (const index of some.keys()) {
        const event = read[index];
        if (event !== undefined) {
          if (events.length === limit || bytes >= bytesMax) return { events, position, horizon, more: true };
          events.push(event);
          bytes += event.text?.length ?? 0;
          documentsRead++;
        }
        position = (some[index] as Change).position;
      }
      at = end;
    }
    if (page.changes.length < asked) return { events, position: page.position, horizon, more: false };
    scanned += asked;
    if (events.length === limit || bytes >= bytesMax || scanned >= SCANNED_MAX)
      return { events, position, horizon, more: true };
  }
}

/**
 * The changes that are wanted, with their documents; undefined in the place of one that has changed since.
 */
async function eventsWithDocuments(
  store: Pick<ProjectStore, 'get'>,
  changes: readonly Change[],
  isWanted: (change: Change) => boolean,
  work: Work,
): Promise<readonly (FeedEvent | undefined)[]> {
  const events: (FeedEvent | undefined)[] = [];
  const reading: Promise<void>[] = [];
  for (const [at, change] of changes.entries()) {
    const turn = work.pause();
    if (turn !== undefined) await turn;
    if (!isWanted(change)) continue;
    const event = change.deleted
      ? { change, text: undefined, isUnreadable: false }
      : eventWithDocument(store, change);
    if (!(event instanceof Promise)) {
      events[at] = event;
      continue;
    }
    const read = event.then((found) => {
      events[at] = found;
    });
    // What fails is noticed when all are waited for.
    read.catch(() => undefined);
    reading.push(read);
  }
  if (reading.length > 0) {
    await work.outside(() => Promise.all(reading));
    work.spend(openingUs(events.reduce((sum, event) => sum + (event?.text?.length ?? 0), 0)));
  }
  return events;
}

/** At once for a document that is in memory. */
function eventWithDocument(
  store: Pick<ProjectStore, 'get'>,
  change: Change,
): Awaitable<FeedEvent | undefined> {
  try {
    const document = store.get(change.ref);
    if (!(document instanceof Promise)) return eventOfDocument(change, document);
    return document.then(
      (read) => eventOfDocument(change, read),
      (error: unknown) => unreadable(change, error),
    );
  } catch (error) {
    return unreadable(change, error);
  }
}

/** Undefined when the document has changed since. */
function eventOfDocument(change: Change, document: StoredDocument | undefined): FeedEvent | undefined {
  if (document?.metadata._rev !== change.rev) return undefined;
  return { change, text: document.text, isUnreadable: false };
}

/** One damaged document must not keep everybody from what comes behind it. */
function unreadable(change: Change, error: unknown): FeedEvent {
  if (!hasCode(error, 'integrity_error')) throw error;
  return { change, text: undefined, isUnreadable: true };
}
