import { hasCode } from '@bundoc/shared/errors';
import type { ProjectCipher } from '../cipher/project-cipher.ts';
import type { UsedKey } from '../storage/embedded/record.ts';
import type { SealCount } from '../storage/embedded/seal-budget.ts';
import type { OnProgress } from '../storage/embedded/verify.ts';
import type { Position, ProjectStore, SealedChange } from '../storage/port.ts';

export type ReadSealedChanges = ProjectStore['sealedChanges'];

/** The project cannot be moved as things are. Where it was, it is in order; it may be tried again. */
export class MoveFailed extends Error {
  override readonly name = 'MoveFailed';
}

/** What a project holds: alike at both ends. */
export interface MoveCounts {
  readonly documents: number;
  /** Sealed bytes of the documents. */
  readonly bytes: number;
}

/** What there is of a project beside its documents and deletions, once nobody writes any more. */
export interface LastOfProject {
  /** The text of its project file. */
  readonly file: string;
  /** Of all versions that it lists. */
  readonly cipher: ProjectCipher;
  readonly lastSeq: Position;
  readonly purgedSeq: Position;
  readonly seals: readonly SealCount[];
  readonly usedKeys: readonly UsedKey[];
  readonly counts: MoveCounts;
}

/** A source while nobody can write to it. */
export interface FencedSource {
  readonly page: ReadSealedChanges;
  last(): Promise<LastOfProject>;
}

/** Where a project is, and in use. */
export interface MoveSource {
  /** Documents and deletions, about, and the place of the latest commit. */
  extent(): Promise<{ readonly size: number; readonly lastSeq: Position }>;
  /** Opens each document that it reads. */
  readonly page: ReadSealedChanges;
  /**
   * Runs `action` while whoever writes waits, or is told to come back; then, in its place, the project is marked as moved, durably and at once: that is when
   * it changes hands. If `action` throws, nothing has changed.
   */
  switchOver(action: (fenced: FencedSource) => Promise<void>): Promise<void>;
}

/** How far a copy has come. */
export interface Copied {
  readonly position: Position;
  /** The place of the latest commit when the copy began. */
  readonly begun: Position;
}

/** Where a project is brought to: under a mark, with which nobody sees it there. */
export interface MoveTarget {
  /**
   * Begins a copy, or goes on with one that was cut short.
   *
   * @param begun what a copy that begins now begins with.
   */
  begin(begun: Position): Promise<Copied>;
  /** Takes over changes, in their order, durably. */
  put(changes: readonly SealedChange[], copied: Copied): Promise<void>;
  /** Reads again and opens every document that was taken over behind a place. @throws MoveFailed. */
  verify(after: Position, onProgress: OnProgress): Promise<void>;
  /** Adds the rest, durably: nothing is missing then but that the mark is taken away. @returns what it holds. */
  finish(last: LastOfProject): Promise<MoveCounts>;
  /** Removes what was copied, but the mark: the next copy begins anew. */
  discard(): Promise<void>;
}

export interface MoveWatch {
  readonly onCopied: OnProgress;
  readonly onVerified: OnProgress;
  /** Told when writes stop, and when the project has changed hands. */
  readonly onSwitch?: (isOver: boolean) => void;
}

export interface MoveLimits {
  /** Changes of one page. */
  readonly limit: number;
  /** Sealed bytes after which a page ends. */
  readonly bytesMax: number;
  /** So many changes behind the copy are few enough for writes to be stopped for them. */
  readonly fewChanges: number;
}

const LIMITS: MoveLimits = { limit: 500, bytesMax: 4_194_304, fewChanges: 1_000 };
const ROUNDS_MAX = 20;

/**
 * Moves a project that is in use, its sealed bytes as they are. It is copied in rounds, each of what changed during the one before, and all of it read again
 * and opened where it came; then writes stop, for the last few changes and what is beside the documents, until the project is marked as moved where it
 * was. Before that mark the source is the project, from it on the target, which has everything by then; it is for the caller to take its mark away.
 *
 * A crash before leaves the source as it was. Run again, it goes on.
 *
 * @throws MoveFailed, and what the two ends throw: then the source is the project, unless its mark says otherwise.
 */
export async function moveProject(
  source: MoveSource,
  target: MoveTarget,
  watch: MoveWatch,
  limits: MoveLimits = LIMITS,
): Promise<void> {
  try {
    await new Copying(source, target, watch, limits).run();
  } catch (error) {
    // What was copied does not fit what is there: the next try must not go on from it.
    if (error instanceof MoveFailed) await target.discard();
    throw error;
  }
}

class Copying {
  readonly #source: MoveSource;
  readonly #target: MoveTarget;
  readonly #watch: MoveWatch;
  readonly #limits: MoveLimits;
  #copied: Copied = { position: 0, begun: 0 };

  constructor(source: MoveSource, target: MoveTarget, watch: MoveWatch, limits: MoveLimits) {
    this.#source = source;
    this.#target = target;
    this.#watch = watch;
    this.#limits = limits;
  }

  async run(): Promise<void> {
    const { lastSeq } = await this.#source.extent();
    this.#copied = await this.#target.begin(lastSeq);
    await this.#inRounds();
    const { position: verified } = this.#copied;
    await this.#target.verify(0, this.#watch.onVerified);
    await this.#inRounds();
    await this.#source.switchOver(async (fenced) => {
      this.#watch.onSwitch?.(false);
      await this.#copy(fenced.page, Number.POSITIVE_INFINITY);
      await this.#target.verify(verified, () => undefined);
      await this.#finish(await fenced.last());
    });
    this.#watch.onSwitch?.(true);
  }

  /** Until little came in while it was copied, or no less than before: whoever writes faster than is copied waits the longer in the end. */
  async #inRounds(): Promise<void> {
    let copied = 0;
    let former = Number.POSITIVE_INFINITY;
    for (let rounds = 0; rounds < ROUNDS_MAX; rounds++) {
      const { size, lastSeq } = await this.#source.extent();
      const before = copied;
      await this.#copy(this.#source.page, lastSeq, (more) => {
        copied += more;
        this.#watch.onCopied(Math.min(copied, size), size);
      });
      const changes = copied - before;
      if (changes <= this.#limits.fewChanges || changes >= former) break;
      former = changes;
    }
  }

  /** @param until where it ends, though there may be more by then: whoever writes fast must not be run after for ever. */
  async #copy(
    page: ReadSealedChanges,
    until: Position,
    onCopied: (changes: number) => void = () => undefined,
  ): Promise<void> {
    for (let isAtEnd = false; !isAtEnd; ) {
      const read = page(this.#copied.position, this.#limits).catch(failedIfDamaged);
      const { changes, position, isComplete, forgotten } = await read;
      // A document that was copied, and whose deletion since is forgotten, would stay for ever where it goes.
      if (forgotten > this.#copied.begun)
        throw new MoveFailed('the copy took longer than deletions are remembered: it is to be begun anew');
      const copied = { ...this.#copied, position };
      await this.#target.put(changes, copied);
      this.#copied = copied;
      onCopied(changes.length);
      isAtEnd = isComplete || position >= until;
    }
  }

  async #finish(last: LastOfProject): Promise<void> {
    if (this.#copied.position !== last.lastSeq)
      throw new MoveFailed('the copy does not end where the project does');
    const { documents, bytes } = await this.#target.finish(last);
    const { counts } = last;
    if (documents !== counts.documents || bytes !== counts.bytes)
      throw new MoveFailed(
        `${counts.documents} documents of ${counts.bytes} bytes were to be moved, and ${documents} of ${bytes} bytes came`,
      );
  }
}

function failedIfDamaged(error: unknown): never {
  if (!hasCode(error, 'integrity_error')) throw error;
  throw new MoveFailed('a document does not open: bundoc verify tells which; replace or delete it first', {
    cause: error,
  });
}
