import { BYTE_US } from '@bundoc/shared/admission/account';
import { hasCode } from '@bundoc/shared/contract/app-error';
import type { Awaitable, Change, Position, ProjectStore, StoredDocument } from '../engine/port/port.ts';
import type { Work } from '../work/work.ts';

/** A position in the feed. */
export interface FeedPlace {
  readonly position: Position;
  /** As in {@link ProjectStore.changes}. */
  readonly horizon: Position;
}

/** The changes that a reader wants. */
export interface FeedFilter {
  /** All collections when absent. */
  readonly collection: string | undefined;
  /** Whether to include the documents. */
  readonly documents: boolean;
}

export interface FeedLimits {
  readonly limit: number;
  /** Bytes of documents that end the page, which always has at least one change. */
  readonly bytesMax: number;
}

export interface FeedEvent {
  readonly change: Change;
  /** The document, if it is wanted and exists. */
  readonly text: Buffer | undefined;
  /** Whether the document is wanted and undecryptable. */
  readonly isUnreadable: boolean;
}

export interface FeedPage extends FeedPlace {
  readonly events: readonly FeedEvent[];
  /** True when a limit ended the page: there may be more. */
  readonly more: boolean;
}

const PAGE = 1_000;
/** Maximum number of changes read for a page; most may belong to other collections. */
const SCANNED_MAX = 10_000;
/** Documents read concurrently: at first, and at most. */
const READ_FIRST = 4;
const READ_TOGETHER_MAX = 16;

/**
 * A page of the feed. Its position also covers skipped changes, so that readers of a rare collection make
 * progress.
 *
 * A document that changes while the page is made is left out: it appears at its new position, because every
 * document appears once.
 *
 * @param work that the page is part of: it yields between any two documents.
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
      // Large documents are read only as far as the page has space for them.
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

/** The wanted changes with their documents; undefined for one that has changed since. */
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
    // A failure is handled when all are awaited.
    read.catch(() => undefined);
    reading.push(read);
  }
  if (reading.length > 0) {
    await work.outside(() => Promise.all(reading));
    work.spend(BYTE_US * events.reduce((sum, event) => sum + (event?.text?.length ?? 0), 0));
  }
  return events;
}

/** Synchronous for a document in memory. */
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

/** A damaged document must not block the changes after it. */
function unreadable(change: Change, error: unknown): FeedEvent {
  if (!hasCode(error, 'integrity_error')) throw error;
  return { change, text: undefined, isUnreadable: true };
}
