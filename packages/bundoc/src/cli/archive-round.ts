import { counted } from '@bundoc/shared/cli/counted';
import type { ArchiveRecord, ObjectHead, RoundPlace } from '../engine/files/archive/object.ts';

/** Checks that the objects of a round have what its restore needs. */
export class RoundCheck {
  readonly #round: RoundPlace;
  readonly #last: number;
  /** Projects with a complete base of the round. */
  readonly #based = new Set<string>();
  #base: string | undefined;
  #bases: number | undefined;
  #hasSegment = false;
  #hasStorageFile = false;

  /** @param last the last object of the restore. */
  constructor(round: RoundPlace, last: number) {
    this.#round = round;
    this.#last = last;
  }

  /** @param head of the object of the record. Objects come in order. */
  take(record: ArchiveRecord, { n }: ObjectHead): void {
    const { first, endedIn, segment } = this.#round;
    if (n < first || n > this.#last) return;
    switch (record.kind) {
      case 'segment':
        this.#hasSegment ||= record.number === segment;
        return;
      case 'storage file':
        this.#hasStorageFile = true;
        return;
      case 'base':
        this.#base = record.inRound && n <= endedIn ? record.project : undefined;
        return;
      case 'end':
        if (this.#base !== undefined) this.#based.add(this.#base);
        this.#base = undefined;
        return;
      case 'round ends':
        if (n === endedIn) this.#bases = record.bases;
        return;
      default:
        return;
    }
  }

  get isRestorable(): boolean {
    return this.#hasSegment && this.#hasStorageFile && this.#bases !== undefined;
  }

  problems(): readonly string[] {
    const { endedIn, segment } = this.#round;
    const problems: string[] = [];
    if (!this.#hasSegment) problems.push(`needs segment ${segment} of the log, which no object has`);
    if (!this.#hasStorageFile) problems.push('needs the storage file, which no object has');
    if (this.#bases === undefined) problems.push(`names a round that has no end in object ${endedIn}`);
    else if (this.#based.size < this.#bases)
      problems.push(
        `names a round that lacks the folders of ${counted(this.#bases - this.#based.size, 'project')}: their folders could not be read`,
      );
    return problems;
  }
}
