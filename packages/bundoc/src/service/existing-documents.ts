import type { Ttl } from '@bundoc/shared/contract/collections';
import type { FieldFault } from '@bundoc/shared/contract/problem';
import { hasInvalidTime } from '../collections/expiry.ts';
import type { CheckInTurns } from '../collections/schema-checks.ts';
import { ownContentOf } from '../crypto/stored-text.ts';
import type { DocumentPage, ListQuery, Position } from '../engine/port/port.ts';
import { textBytes } from '../work/large-bytes.ts';
import type { Work } from '../work/work.ts';

/** A document that a write would now refuse, and the first reasons. */
export interface FailingDocument {
  readonly id: string;
  readonly errors: readonly FieldFault[];
}

export interface ExistingDocumentsOptions {
  readonly collection: string;
  /** The check of a schema, if there is one. */
  readonly check: CheckInTurns | undefined;
  readonly ttl?: Ttl | undefined;
  /** Reads a page from the store. */
  readonly list: (query: ListQuery) => Promise<DocumentPage>;
  /** Maximum number of documents to check. */
  readonly documentsMax: number;
  /** Creation position of the last document that was already checked; 0 for none. */
  readonly after: Position;
  readonly work: Work;
}

/** Maximum bytes of documents that one check reads. */
const BYTES_MAX = 67_108_864;
/** Pages with only expired documents that are skipped: each stands for thousands. */
const EMPTY_PAGES_MAX = 2;
const PAGE = { limit: 200, bytesMax: 1_048_576 };
/** Limits on reported documents, errors of each, and characters of an error. */
const NAMED_MAX = 20;
const ERRORS_MAX = 3;
const ERROR_CHARS_MAX = 256;
/** Undecryptable documents that end a check. */
const UNREADABLE_MAX = 100;

/**
 * Checks existing documents: how many a schema would now refuse, and how many never expire by mistake. Its
 * results are valid even if {@link run} throws.
 */
export class ExistingDocuments {
  readonly #options: ExistingDocumentsOptions;
  readonly #failures: FailingDocument[] = [];
  readonly #unreadable: string[] = [];
  #checked = 0;
  #failing = 0;
  #invalidTimes = 0;
  #next: Position | undefined;

  constructor(options: ExistingDocumentsOptions) {
    this.#options = options;
    this.#next = options.after;
  }

  get checked(): number {
    return this.#checked;
  }

  get failing(): number {
    return this.#failing;
  }

  /** Documents that never expire, because their time is none. */
  get invalidTimes(): number {
    return this.#invalidTimes;
  }

  /** The first failing documents. */
  get failures(): readonly FailingDocument[] {
    return this.#failures;
  }

  /** Ids of undecryptable documents, which do not count as checked. */
  get unreadable(): readonly string[] {
    return this.#unreadable;
  }

  /** The position after which another check continues; undefined when all were checked. */
  get next(): Position | undefined {
    return this.#next;
  }

  /** @throws AppError of the store, the check and the work. */
  async run(): Promise<void> {
    const { collection, list, check, ttl, work } = this.#options;
    let bytes = 0;
    let emptyPages = 0;
    while (
      this.#next !== undefined &&
      this.#mayContinue &&
      bytes < BYTES_MAX &&
      emptyPages < EMPTY_PAGES_MAX
    ) {
      const limit = Math.min(PAGE.limit, this.#left);
      const query = { collection, after: this.#next, ...PAGE, limit, work };
      const page = await work.outside(() => list(query));
      work.hold(textBytes(page.documents));
      if (page.documents.length === 0) emptyPages++;
      this.#unreadable.push(...page.unreadable);
      for (const document of page.documents) {
        const turn = work.pause();
        if (turn !== undefined) await turn;
        const { text, metadata } = document;
        bytes += text.length;
        if (ttl !== undefined && hasInvalidTime(ttl, text)) this.#invalidTimes++;
        const content = ownContentOf(text, { collection: metadata._collection, id: metadata._id });
        this.#count(metadata._id, (await check?.(content, work)) ?? []);
      }
      this.#next = page.next;
    }
  }

  get #left(): number {
    return this.#options.documentsMax - this.#checked - this.#unreadable.length;
  }

  get #mayContinue(): boolean {
    return this.#left > 0 && this.#unreadable.length < UNREADABLE_MAX;
  }

  #count(id: string, errors: readonly FieldFault[]): void {
    this.#checked++;
    if (errors.length === 0) return;
    this.#failing++;
    if (this.#failures.length < NAMED_MAX)
      this.#failures.push({ id, errors: errors.slice(0, ERRORS_MAX).map(shorten) });
  }
}

/** A path in a document may be as long as the document. */
function shorten({ path, message }: FieldFault): FieldFault {
  return { path: path.slice(0, ERROR_CHARS_MAX), message: message.slice(0, ERROR_CHARS_MAX) };
}
