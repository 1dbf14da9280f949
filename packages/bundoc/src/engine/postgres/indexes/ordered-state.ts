import { OpenError } from '@bundoc/shared/crypto/aead';
import type { Position } from '../../port/port.ts';
import { decodeCell } from '../order/cell.ts';
import type { Keys } from '../order/entry.ts';
import type { Manifest } from '../order/manifest.ts';
import { Tail, type TailRow } from '../order/tail.ts';
import type { PageCipher, RowCipher } from '../rows/row-cipher.ts';
import { orUndefined } from '../rows/rows.ts';
import type { IndexRow } from './index-rows.ts';
import type { ChangedRow, KnownOrder, OrderedRows } from './ordered-rows.ts';
import { NOTHING_KNOWN } from './ordered-rows.ts';
import { openManifest } from './run-rows.ts';

/** The stored runs of an index do not open, or are not those of its row. They must be built again. */
export class RunsDamaged extends Error {
  override readonly name = 'RunsDamaged';
}

/**
 * What a node knows of one ordered index: its runs, and the documents that changed after them. It learns more
 * with each statement, in whichever order their answers come.
 */
export class OrderedState {
  readonly index: IndexRow;
  readonly #rows: RowCipher;
  readonly #ciphers = new Map<string, PageCipher>();
  #version = NOTHING_KNOWN.version;
  #keyVersion = 0;
  #manifest: Manifest | undefined;
  #tail = new Tail(0);
  #isWhole = false;
  #staleShare = 0;
  #total = 0;

  constructor(index: IndexRow, rows: RowCipher) {
    this.index = index;
    this.#rows = rows;
  }

  get known(): KnownOrder {
    return { version: this.#version, asOf: this.#tail.asOf, seenTo: this.#tail.seenTo };
  }

  /** Undefined before the first rows. */
  get manifest(): Manifest | undefined {
    return this.#manifest;
  }

  get tail(): Tail {
    return this.#tail;
  }

  /** The last commit that it shows. */
  get asOf(): Position {
    return this.#tail.seenTo;
  }

  /** Whether it shows a commit with all of its changes: those of a long tail come in parts. */
  get isWhole(): boolean {
    return this.#isWhole;
  }

  /** Share of the latest entries that were out of date, so that an answer reads enough of them at once. */
  get staleShare(): number {
    return this.#staleShare;
  }

  /** The number of documents in the collection. */
  get total(): number {
    return this.#total;
  }

  /** Whether documents may have several entries, or too many keys. */
  get isMultiple(): boolean {
    return this.#tail.multiple > 0 || (this.#manifest?.runs.some(({ multiple }) => multiple > 0) ?? false);
  }

  /** Estimated memory. */
  get bytes(): number {
    return this.#tail.changes * CHANGE_BYTES + this.#tail.bytes;
  }

  /** Learns from rows. @throws RunsDamaged, VersionUnknown. */
  learn(rows: OrderedRows): void {
    // Answers of statements may come in another order than their states.
    if (rows.version > this.#version) this.#take(rows);
    else if (rows.version === this.#version && rows.asOf !== this.#tail.asOf) throw new RunsDamaged();
    if (rows.changedAfter > this.#tail.seenTo) throw new RunsDamaged();
    for (const row of rows.changed)
      if (row.seq > this.#tail.asOf) this.#tail.apply(tailRowOf(row, this.index.id, this.#rows));
    const isLatest = rows.seq >= this.#tail.seenTo;
    if (isLatest) this.#isWhole = rows.isComplete;
    if (!isLatest || !rows.isComplete) return;
    this.#tail.sawTo(rows.seq);
    this.#total = rows.total;
  }

  /** Notes how many of some entries were out of date. */
  foundStale(entries: number, stale: number): void {
    if (entries > 0) this.#staleShare += (stale / entries - this.#staleShare) * STALE_WEIGHT;
  }

  /** Opens the pages of a run. @throws RunsDamaged for another run; VersionUnknown. */
  cipherOf(run: string): PageCipher {
    const known = this.#ciphers.get(run);
    if (known !== undefined) return known;
    if (this.#manifest?.runs.some(({ id }) => id === run) !== true) throw new RunsDamaged();
    const cipher = this.#rows.pageCipher(run, this.#keyVersion);
    this.#ciphers.set(run, cipher);
    return cipher;
  }

  #take({ version, keyVersion, asOf, runs }: OrderedRows): void {
    const manifest = openManifest(this.#rows, this.index.id, { version, keyVersion, sealed: runs ?? null });
    if (manifest === undefined || manifest.asOf !== asOf || manifest.builtTo !== 'all')
      throw new RunsDamaged();
    const follows = this.#manifest !== undefined && asOf >= this.#tail.asOf;
    this.#tail = follows ? this.#tail.after(asOf) : new Tail(asOf);
    this.#manifest = manifest;
    this.#version = version;
    this.#keyVersion = keyVersion ?? 0;
    this.#ciphers.clear();
  }
}

/** Weight of the latest entries. */
const STALE_WEIGHT = 0.2;
/** Memory of a changed document beside its places. */
const CHANGE_BYTES = 300;

/**
 * A row as a tail takes it. If its keys are missing or do not open, every search reads the document.
 *
 * @throws VersionUnknown.
 */
function tailRowOf(row: ChangedRow, id: number, rows: RowCipher): TailRow {
  const { name, seq, createdSeq, isDeleted } = row;
  return { name: name.toString('hex'), createdSeq, seq, keys: isDeleted ? undefined : keysOf(row, id, rows) };
}

function keysOf({ name, seq, createdSeq, keyVersion, keys }: ChangedRow, id: number, rows: RowCipher): Keys {
  if (keys === null) return 'too many';
  const cell = orUndefined(() => {
    if (createdSeq < 0 || seq < createdSeq) throw new OpenError();
    return decodeCell(rows.openKeys({ fileName: name, createdSeq, seq }, keyVersion, keys));
  });
  return cell?.get(id) ?? 'too many';
}
