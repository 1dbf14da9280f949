import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { type DocumentRef, ownContentOf } from '../crypto/stored-text.ts';
import { patchContentInTurns } from '../documents/patch/patch-content.ts';
import type { Patch } from '../documents/patch/read-patch.ts';
import type { Position, ProjectStore, StoredDocument, Write } from '../engine/port/port.ts';
import { RefusedWrite } from '../engine/port/refused-write.ts';
import type { QueryExecution } from '../queries/execution.ts';
import { Candidate } from '../queries/scan.ts';
import type { Work } from '../work/work.ts';

/** Bytes of changed documents that end an answer, which has at least one: half of the largest commit. */
const RESULT_BYTES_MAX = 16_777_216;

/** A document that matched, at the revision that was tested last. */
interface Match {
  readonly ref: DocumentRef;
  /** Of its creation. */
  readonly position: Position;
  rev: string;
  /** What an update changes; undefined for a deletion, and once its write is made. */
  text: Buffer | undefined;
  write: Write | undefined;
  /** It no longer matches, or is gone: it is left alone. */
  isLeft: boolean;
}

export interface MatchedWritesOptions {
  /** Undefined to delete. */
  readonly patch: Patch | undefined;
  readonly documentBytesMax: number;
  readonly work: Work;
}

/**
 * The documents that one answer writes, and their writes. Each write requires the revision that was tested,
 * so that no change of others is lost.
 */
export class MatchedWrites {
  readonly #options: MatchedWritesOptions;
  #matches: Match[] = [];
  /** Of texts and writes. */
  #bytes = 0;
  /** The position behind which the next answer begins; undefined for no other answer. */
  end: Position | undefined;

  constructor(options: MatchedWritesOptions) {
    this.#options = options;
  }

  /** Documents found, also those that are left alone. */
  get matched(): number {
    return this.#matches.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Ids of the documents to write. */
  get ids(): readonly string[] {
    return this.#live.map(({ ref }) => ref.id);
  }

  get #live(): readonly Match[] {
    return this.#matches.filter(({ isLeft }) => !isLeft);
  }

  add({ metadata, text }: StoredDocument, position: Position): void {
    const { _collection: collection, _id: id, _rev: rev } = metadata;
    const kept = this.#options.patch === undefined ? undefined : text;
    this.#bytes += kept?.length ?? 0;
    this.#matches.push({
      ref: { collection, id },
      position,
      rev,
      text: kept,
      write: undefined,
      isLeft: false,
    });
  }

  /**
   * The writes of all that still match. Ends the answer earlier if they have too many bytes.
   *
   * @throws RefusedWrite for an update that does not fit a document.
   */
  async plan(): Promise<readonly Write[]> {
    const { work } = this.#options;
    const writes: Write[] = [];
    let bytes = 0;
    for (const [index, match] of this.#live.entries()) {
      const turn = work.pause();
      if (turn !== undefined) await turn;
      const write = match.write ?? (await this.#write(match, index));
      bytes += bytesOf(write);
      if (bytes > RESULT_BYTES_MAX && index > 0) {
        this.#endBefore(match);
        break;
      }
      writes.push(write);
    }
    work.leave();
    return writes;
  }

  async #write(match: Match, index: number): Promise<Write> {
    const { ref, rev, text } = match;
    const { patch, documentBytesMax, work } = this.#options;
    const precondition = { kind: 'revision', anyOf: [rev] } as const;
    if (patch === undefined || text === undefined) return { kind: 'delete', ref, precondition };
    try {
      const content = await patchContentInTurns(ownContentOf(text, ref), patch, documentBytesMax, work);
      match.write = { kind: 'put', ref, content, precondition };
    } catch (error) {
      const isOfDocument =
        error instanceof AppError &&
        (error.code === 'patch_inapplicable' || error.code === 'payload_too_large');
      if (!isOfDocument) throw error;
      throw new RefusedWrite(error.code, index, { errors: error.errors, detail: error.detail, cause: error });
    }
    match.text = undefined;
    this.#bytes += bytesOf(match.write) - text.length;
    work.hold(this.#bytes);
    return match.write;
  }

  /** Leaves the second half of the writes to the next answer, if there are several. */
  halve(): void {
    const live = this.#live;
    const first = live[Math.ceil(live.length / 2)];
    if (first !== undefined) this.#endBefore(first);
  }

  #endBefore(match: Match): void {
    const at = this.#matches.indexOf(match);
    for (const { text, write } of this.#matches.slice(at))
      this.#bytes -= (text?.length ?? 0) + (write === undefined ? 0 : bytesOf(write));
    this.#matches = this.#matches.slice(0, at);
    this.end = this.#matches.at(-1)?.position;
  }

  /**
   * Reads documents again and tests them.
   *
   * @param open returns the store, after a check that the project's key is usable.
   * @param indexes of the last {@link plan}.
   * @returns whether any has changed.
   */
  async refresh(
    open: () => Promise<ProjectStore>,
    run: QueryExecution,
    indexes: readonly number[],
  ): Promise<boolean> {
    const { work } = this.#options;
    const live = this.#live;
    let hasChanged = false;
    for (const index of indexes) {
      const match = live[index] as Match;
      const document = await work.outside(async () => read(await open(), match.ref));
      if (document?.metadata._rev === match.rev) continue;
      hasChanged = true;
      this.#bytes -= (match.text?.length ?? 0) + (match.write === undefined ? 0 : bytesOf(match.write));
      match.text = undefined;
      match.write = undefined;
      match.isLeft =
        document === undefined || !(await run.holds(new Candidate(document, match.position, false)));
      if (document === undefined || match.isLeft) continue;
      match.rev = document.metadata._rev;
      if (this.#options.patch !== undefined) {
        match.text = document.text;
        this.#bytes += document.text.length;
        work.hold(this.#bytes);
      }
    }
    work.leave();
    return hasChanged;
  }

  /** A refusal that names its document. */
  naming({ code, index, errors, detail, cause }: RefusedWrite): AppError {
    const place = `the document ${JSON.stringify(this.#live[index]?.ref.id)}`;
    return new AppError(code, {
      errors,
      detail: detail === undefined ? place : `${place}: ${detail}`,
      cause,
    });
  }
}

function bytesOf(write: Write): number {
  return write.kind === 'put' ? write.content.bytes.length : 0;
}

/** Undefined for a document that is gone, or does not open. */
async function read(store: ProjectStore, ref: DocumentRef): Promise<StoredDocument | undefined> {
  try {
    return await store.get(ref);
  } catch (error) {
    if (hasCode(error, 'integrity_error')) return undefined;
    throw error;
  }
}
