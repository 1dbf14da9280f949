import { randomUUID } from 'node:crypto';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { deriveKey } from '@bundoc/shared/crypto/aead';
import type { StartedStorage } from '../engine/identity/started-storage.ts';
import { settleMove } from '../engine/moves/judge-move-mark.ts';
import { MARK_KEY, type MoveMark, openMoveMark, sealMoveMark } from '../engine/moves/move-mark.ts';
import type {
  FencedSource,
  MoveSource,
  MoveTarget,
  ReadSealedChanges,
} from '../engine/moves/transfer-port.ts';
import { MoveFailed } from '../engine/port/errors.ts';
import type { Position, SealedPageLimits } from '../engine/port/port.ts';
import type { OnProgress } from '../engine/port/reports.ts';

/**
 * Receives the progress of a move, and when writes stop. An error that it throws ends the move between two
 * steps, unless the cut-over is near.
 */
export interface MoveWatch {
  readonly onCopied: OnProgress;
  readonly onVerified: OnProgress;
  readonly onSwitch?: () => void;
}

/** Limits of one page of changes, and of the rounds. */
export interface MoveLimits extends SealedPageLimits {
  /** Number of remaining changes that is small enough to stop writes. */
  readonly fewChanges: number;
}

const LIMITS: MoveLimits = { limit: 500, bytesMax: 4_194_304, fewChanges: 1_000 };
const ROUNDS_MAX = 20;

export interface ProjectMove {
  readonly project: string;
  readonly source: MoveSource;
  readonly target: MoveTarget;
  readonly from: StartedStorage;
  /**
   * Started for this move: so BunKMS knows that it is in use rather than a copy, and its earlier offers as a
   * source are invalid.
   */
  readonly to: StartedStorage;
}

/**
 * Moves a project that is in use, with its sealed bytes unchanged. It is copied in rounds, each with the
 * changes from the one before. Then the whole copy is read and decrypted at the target, and the source is
 * fenced for the last changes. The cut-over is BunKMS's acceptance of the source's offer by the target. After
 * an interruption, the project is in exactly one place, which BunKMS knows.
 *
 * @returns the move's id.
 * @throws MoveFailed, and the errors of both ends and BunKMS. Then the source has the project, or its marker
 *   blocks it until BunKMS says who has it.
 */
export async function moveProject(
  { project, source, target, from, to }: ProjectMove,
  watch: MoveWatch,
  limits: MoveLimits = LIMITS,
): Promise<string> {
  const move = randomUUID();
  const sealMark = (state: MoveMark['state']) => {
    const mark = { state, move, from: from.id, to: to.id, since: new Date().toISOString() };
    return sealMoveMark(project, source.cipher, mark);
  };
  const { lastSeq } = await source.extent();
  const keyOf = async (version: number) => source.cipher.subkey(version, MARK_KEY);
  const isOurs = async (text: string) => (await openMoveMark(project, text, keyOf)) !== undefined;
  await target.begin(sealMark('incoming'), isOurs);
  /** While the holder is unknown, the copy at the target may be all that is left of the project. */
  let isInDoubt = false;
  try {
    const copying = new Copying({ source, target, watch, limits, begun: lastSeq });
    await copying.run();
    let [offering, leaving] = [from.acting(), ''];
    const finish = async (fenced: FencedSource) => {
      await copying.finish(fenced, () => sealMark('whole'));
      // Other nodes may have advanced both storages during the copy.
      await to.advance();
      offering = await from.advance();
    };
    await source.fence(finish, () => {
      leaving = sealMark('leaving');
      return leaving;
    });
    isInDoubt = true;
    try {
      // Uses the generation of the fence: in a later one, someone may already have ended the move.
      await from.calls.offerKey(dekNameOf(project), to.id, move, offering);
      const accept = () => to.calls.acceptKey(dekNameOf(project), move, to.acting());
      await accept().catch(async (error: unknown) => {
        if (!hasCode(error, 'storage_superseded')) throw error;
        // Another node of the target has advanced it. A copy of the target that is in use cannot.
        await to.advance();
        await accept();
      });
    } catch (error) {
      // If BunKMS cannot tell, the next opening of the project asks again.
      const ifMoved = (why: unknown) =>
        (hasCode(why, 'project_elsewhere') && why.storage === to.id) || Promise.reject(error);
      isInDoubt = await settleMove(from, project, move).then(() => false, ifMoved);
      if (!isInDoubt) {
        await source.stay(leaving);
        throw error;
      }
    }
  } catch (error) {
    if (!isInDoubt) await target.discard().catch(() => undefined);
    throw error;
  }
  await target.open();
  await source.leave(sealMark('moved'), move);
  return move;
}

/**
 * Finishes a move after its cut-over, once the target has the complete project. Idempotent.
 *
 * @returns the move's id.
 * @throws AppError `project_elsewhere` when the source has no marker of a move to the target; MoveFailed when
 *   the target's project is incomplete.
 */
export async function finishMove(ends: Omit<ProjectMove, 'from'>): Promise<string> {
  const { project, source, target, to } = ends;
  const name = dekNameOf(project);
  const acting = await to.advance();
  const keyOf = async (version: number) =>
    deriveKey((await to.calls.exportKey(name, version, acting)).dek, MARK_KEY);
  const text = (await source.mark()) ?? '';
  const mark = await openMoveMark(project, text, keyOf);
  if (mark?.to !== to.id || !['leaving', 'moved'].includes(mark.state))
    throw new AppError('project_elsewhere', { storage: to.id });
  const { hasFile, mark: there } = await target.present();
  const incoming = there === undefined ? undefined : await openMoveMark(project, there, keyOf);
  const isWhole = incoming?.state === 'whole' && incoming.move === mark.move;
  if (!hasFile || (there !== undefined && !isWhole))
    throw new MoveFailed(
      `storage ${to.id} holds its key and does not have it whole, so nothing is removed here: bring that storage back as it was, or give the key back (bunkms key take-over ${name} --storage ${mark.from})`,
    );
  await source.leave(text, mark.move);
  return mark.move;
}

interface CopyOptions extends Pick<ProjectMove, 'source' | 'target'> {
  readonly watch: MoveWatch;
  readonly limits: MoveLimits;
  /** The position of the latest commit when the copy began. */
  readonly begun: Position;
}

class Copying {
  readonly #options: CopyOptions;
  #position: Position = 0;
  #verified: Position = 0;

  constructor(options: CopyOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    await this.#inRounds();
    this.#verified = this.#position;
    await this.#options.target.verify(0, this.#options.watch.onVerified);
    await this.#inRounds();
  }

  /** @throws MoveFailed unless the target's totals equal those of the source. */
  async finish(fenced: FencedSource, whole: () => string): Promise<void> {
    this.#options.watch.onSwitch?.();
    await this.#copy(fenced.page, Number.POSITIVE_INFINITY);
    await this.#options.target.verify(this.#verified, () => undefined);
    const last = await fenced.last();
    if (this.#position !== last.lastSeq) throw new MoveFailed('the copy does not end where the project does');
    const { documents, bytes } = await this.#options.target.finish(last, whole());
    if (documents !== last.documents || bytes !== last.bytes)
      throw new MoveFailed(
        `${last.documents} documents of ${last.bytes} bytes were to be moved, and ${documents} of ${bytes} bytes came`,
      );
  }

  /**
   * Copies rounds until the backlog is small or stops shrinking. Writers that outpace the copy wait longer at
   * cut-over.
   */
  async #inRounds(): Promise<void> {
    let copied = 0;
    let former = Number.POSITIVE_INFINITY;
    for (let rounds = 0; rounds < ROUNDS_MAX; rounds++) {
      const { size, lastSeq } = await this.#options.source.extent();
      const before = copied;
      await this.#copy(this.#options.source.page, lastSeq, (more) => {
        copied += more;
        this.#options.watch.onCopied(Math.min(copied, size), size);
      });
      const changes = copied - before;
      if (changes <= this.#options.limits.fewChanges || changes >= former) break;
      former = changes;
    }
  }

  /**
   * @param until the position to stop at, even if more changes exist by then: with a fast writer, the copy
   *   might never end.
   */
  async #copy(
    page: ReadSealedChanges,
    until: Position,
    onCopied: (changes: number) => void = () => undefined,
  ): Promise<void> {
    for (let isAtEnd = false; !isAtEnd; ) {
      const read = page(this.#position, this.#options.limits).catch(failedIfDamaged);
      const { changes, position, isComplete, forgotten } = await read;
      // A copied document whose deletion was since purged would stay at the target forever.
      if (forgotten > this.#options.begun)
        throw new MoveFailed('the copy took longer than deletions are remembered: begin it again');
      await this.#options.target.put(changes, position);
      this.#position = position;
      onCopied(changes.length);
      isAtEnd = isComplete || position >= until;
    }
  }
}

function failedIfDamaged(error: unknown): never {
  if (!hasCode(error, 'integrity_error')) throw error;
  throw new MoveFailed('a document does not open: bundoc verify names it; replace or delete it first', {
    cause: error,
  });
}
