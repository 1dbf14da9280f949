import { openOwnDocument } from '../../open-document.ts';
import type { DocumentState } from '../../port/state.ts';
import { readRecords } from '../../port/state.ts';
import { getFileName } from '../documents/document-files.ts';
import type { Place } from '../log/layout.ts';
import { comparePlaces, isSamePlace } from '../log/layout.ts';
import { nameOfPlace } from '../log/parts.ts';
import type { PartsDamaged } from '../log/sealed-part.ts';
import type { LoadedStore } from './project-loader.ts';
import type { FoundCommit, FoundFile, PartsLeft, RemainsPlace, SeqRange } from './salvage-scan.ts';

interface PartsScanOptions extends Pick<RemainsPlace, 'log' | 'cipher'> {
  readonly store: LoadedStore;
  readonly covered: Place | undefined;
  readonly catalogFault: string | undefined;
  readonly found: ReadonlyMap<string, FoundFile>;
  /** Receives the faults that are found. */
  readonly partFaults: string[];
}

/** Replays the remaining parts in order, and records what is missing between them. */
export class PartsScan {
  readonly #options: PartsScanOptions;
  readonly #last = new Map<string, Place>();
  #seqBefore: number;
  #isAfterHole = false;
  readonly knownRevs = new Map<string, Set<string>>();
  readonly updatedMs = new Map<string, number>();
  readonly deleted = new Set<string>();
  readonly lostSeqs: SeqRange[] = [];
  firstSeq: number | undefined;

  constructor(options: PartsScanOptions) {
    const { catalog } = options.store;
    this.#options = options;
    this.#seqBefore = catalog.lastSeq;
    for (const state of catalog.states()) this.#know(state);
  }

  /** @param plaintext undefined for an undecryptable part. */
  take(part: FoundCommit['part'], plaintext: Buffer | undefined): void {
    const { store, covered, partFaults } = this.#options;
    const { handle, previous } = part.entry;
    const before = this.#last.get(handle);
    this.#last.set(handle, part.place);
    const isCovered = covered !== undefined && comparePlaces(part.place, covered) <= 0;
    if (!isCovered && !this.#follows(previous, before)) {
      partFaults.push(`${nameOfPlace(part.place)}: parts before this one are damaged or missing`);
      this.#isAfterHole = true;
    }
    if (plaintext === undefined) return;
    for (const record of readRecords(plaintext)) {
      if (record.kind !== 'document') continue;
      this.#know(record.state);
      if (!isCovered) this.#note(record.state, record.sealed);
    }
    if (isCovered) return;
    for (const _step of store.replay(plaintext));
    store.sealedByFile.clear();
  }

  /** Records what is missing after the last parts. @returns whether the extent of the loss is unknown. */
  end(handles: ReadonlySet<string>, parts: PartsLeft, damage: PartsDamaged | undefined): boolean {
    const { log, covered, partFaults } = this.#options;
    let endIsUnknown = this.#isAfterHole || handles.size > 1;
    for (const one of handles) {
      const newest = parts.newest.get(one);
      const reached = this.#last.get(one) ?? covered;
      if (parts.doubtful.has(one)) partFaults.push('frames of unknown projects are lost in the log');
      else if (newest === undefined || (covered !== undefined && comparePlaces(newest, covered) <= 0))
        continue;
      else if (reached !== undefined && isSamePlace(reached, newest)) continue;
      else partFaults.push(`${nameOfPlace(newest)}: the last part is damaged or missing`);
      endIsUnknown = true;
    }
    if (handles.size === 0 && log.isDoubtful('', undefined))
      partFaults.push('frames of unknown projects are lost in the log');
    if (partFaults.length === 0 && damage !== undefined) partFaults.push(damage.message);
    // Damage of unknown extent, too.
    endIsUnknown ||= partFaults.length > 0 && this.lostSeqs.length === 0;
    if (endIsUnknown && partFaults.length > 0) this.lostSeqs.push({ from: this.#seqBefore + 1 });
    return endIsUnknown;
  }

  #know(state: DocumentState): void {
    const revs = this.knownRevs.get(getFileName(state)) ?? new Set();
    this.knownRevs.set(getFileName(state), revs.add(state.rev.toString('hex')));
  }

  /** Records a document that the repair restores. */
  #note(state: DocumentState, sealed: Buffer): void {
    if (state.seq > this.#seqBefore) {
      if (this.#isAfterHole && state.seq > this.#seqBefore + 1)
        this.lostSeqs.push({ from: this.#seqBefore + 1, to: state.seq - 1 });
      this.#isAfterHole = false;
      this.#seqBefore = state.seq;
    }
    this.firstSeq = Math.min(this.firstSeq ?? state.seq, state.seq);
    if (state.deletedMs === 0) this.deleted.delete(getFileName(state));
    else this.deleted.add(getFileName(state));
    this.#noteUpdate(state, sealed);
  }

  #follows(previous: Place | undefined, before: Place | undefined): boolean {
    const { log, covered, catalogFault } = this.#options;
    if (previous === undefined) return before === undefined && covered === undefined;
    if (before !== undefined && isSamePlace(previous, before)) return true;
    if (covered !== undefined) return isSamePlace(previous, covered);
    // A catalog has covered the freed parts, so their documents are in files.
    return before === undefined && catalogFault !== undefined && previous.segment < log.firstLive;
  }

  #noteUpdate(state: DocumentState, sealed: Buffer): void {
    const { found, cipher } = this.#options;
    const fileName = getFileName(state);
    const inFile = found.get(fileName)?.metadata._rev;
    if (state.deletedMs !== 0 || inFile === undefined || inFile === state.rev.toString('hex')) {
      this.updatedMs.delete(fileName);
      return;
    }
    const opened = openOwnDocument(cipher, fileName, sealed);
    if ('metadata' in opened) this.updatedMs.set(fileName, Date.parse(opened.metadata._updated));
  }
}
