import assert from 'node:assert/strict';
import { OpenError, SEAL_OVERHEAD_BYTES } from '@bundoc/shared/crypto/aead';
import { POSITION_BYTES, positionOf } from '../../../values/key.ts';
import { type OrderEntry, PLACE_UNITS_MAX } from './entry.ts';
import { PackedReader, varintBytes, writeVarint } from './varint.ts';

/** Sealed bytes of every page: four chunks of TOAST. */
export const PAGE_BYTES = 7_984;
/** Bytes of a page before it is sealed. */
export const PAGE_PLAIN_BYTES = PAGE_BYTES - SEAL_OVERHEAD_BYTES;

/** The largest position, and the largest number of a page. */
const SEQ_MAX = 2 ** 48 - 1;
const KINDS = { leaf: 1, fences: 2, changed: 3 } as const;
const { leaf: LEAF, fences: FENCES, changed: CHANGED } = KINDS;
/** Kind and number of items. */
const HEAD_BYTES = 3;
/** Items of a block: a page remembers where each block begins, and decodes one block at a time. */
const BLOCK_ITEMS = 16;

/** Decodes texts one behind the other: each keeps the start of the one before it. Used synchronously. */
const scratch = Buffer.alloc(PLACE_UNITS_MAX);

/** Makes the plaintext of one page. All pages have the same size; what is not used is zero. */
export class PageWriter {
  /** The page so far, which may be taken at any time. */
  readonly bytes: Buffer;
  #at = HEAD_BYTES;
  #last = '';
  #lastNumber = 0;
  #items = 0;

  constructor(kind: keyof typeof KINDS, pageBytes = PAGE_PLAIN_BYTES) {
    this.bytes = Buffer.alloc(pageBytes);
    this.bytes[0] = KINDS[kind];
  }

  /** The text that was added last. */
  get last(): string {
    return this.#last;
  }

  /** Adds a text, larger than the one before, with a value up to 2^49 - 1; false if it does not fit. */
  addText(text: string, value: number): boolean {
    assert(this.#items === 0 || this.#last < text, 'texts are added in order');
    const shared = sharedUnits(this.#last, text);
    const rest = text.length - shared;
    const bytes = varintBytes(shared) + varintBytes(rest) + rest + varintBytes(value);
    if (this.#at + bytes > this.bytes.length) return false;
    let at = writeVarint(this.bytes, this.#at, shared);
    at = writeVarint(this.bytes, at, rest);
    at += this.bytes.write(text.slice(shared), at, 'latin1');
    this.#at = writeVarint(this.bytes, at, value);
    this.#last = text;
    this.#count();
    return true;
  }

  /** Adds a number, larger than the one before; false if it does not fit. */
  addNumber(number: number): boolean {
    assert(number > this.#lastNumber, 'numbers are added in order');
    const step = number - this.#lastNumber;
    if (this.#at + varintBytes(step) > this.bytes.length) return false;
    this.#at = writeVarint(this.bytes, this.#at, step);
    this.#lastNumber = number;
    this.#count();
    return true;
  }

  #count(): void {
    this.#items++;
    this.bytes.writeUInt16BE(this.#items, 1);
  }
}

/** The value of an entry in a leaf. */
export function entryValue({ createdSeq, seq, isMultiple }: OrderEntry): number {
  return (seq - createdSeq) * 2 + Number(isMultiple);
}

/**
 * A decoded page of entries or fences: sorted texts with values. Beside the plaintext, it keeps only the
 * first text of each block in memory.
 */
export class Page {
  readonly isLeaf: boolean;
  /** Number of texts: one or more. */
  readonly size: number;
  readonly #bytes: Buffer;
  /** Where each block begins, and its first text. */
  readonly #starts: number[] = [];
  readonly #firsts: string[] = [];
  readonly #last: string;
  /** The block that was decoded last. */
  #block = -1;
  #texts: string[] = [];
  #values: number[] = [];

  /**
   * Checks the whole page. It keeps `bytes`, the plaintext, which must not change.
   *
   * @throws OpenError for bytes that {@link PageWriter} does not make.
   */
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.isLeaf = bytes[0] === LEAF;
    const reader = new PackedReader(bytes);
    this.size = readHead(reader, this.isLeaf ? LEAF : FENCES);
    let length = -1;
    for (let item = 0; item < this.size; item++) {
      const start = reader.at;
      length = readText(reader, length);
      if (item % BLOCK_ITEMS === 0) {
        this.#starts.push(start);
        this.#firsts.push(scratch.toString('latin1', 0, length));
      }
      checkValue(this.isLeaf, length, reader.varint());
    }
    this.#last = scratch.toString('latin1', 0, length);
    reader.end();
  }

  /** The text of an item, by its number from 0. */
  text(item: number): string {
    return this.#decoded(item)[item % BLOCK_ITEMS] as string;
  }

  /** The page that a fence names. */
  pageOf(item: number): number {
    this.#decoded(item);
    return this.#values[item % BLOCK_ITEMS] as number;
  }

  /** An entry of a leaf. */
  entry(item: number): OrderEntry {
    const place = this.text(item);
    const value = this.#values[item % BLOCK_ITEMS] as number;
    const createdSeq = positionOf(place);
    const isMultiple = value % 2 === 1;
    return { place, createdSeq, seq: createdSeq + Math.floor(value / 2), isMultiple };
  }

  /** The number of texts before a text, which need not be on the page. */
  countBefore(text: string): number {
    if (this.#last < text) return this.size;
    const block = partition(this.#firsts.length, (at) => (this.#firsts[at] as string) < text) - 1;
    if (block < 0) return 0;
    const start = block * BLOCK_ITEMS;
    const texts = this.#decoded(start);
    return start + partition(texts.length, (at) => (texts[at] as string) < text);
  }

  /** Decodes the block of an item. */
  #decoded(item: number): readonly string[] {
    const block = Math.floor(item / BLOCK_ITEMS);
    if (this.#block === block) return this.#texts;
    const reader = new PackedReader(this.#bytes);
    reader.at = this.#starts[block] as number;
    reader.varint();
    reader.skip(reader.varint());
    const first = this.#firsts[block] as string;
    const texts = [first];
    const values = [reader.varint()];
    let length = scratch.write(first, 'latin1');
    for (let left = Math.min(BLOCK_ITEMS, this.size - block * BLOCK_ITEMS) - 1; left > 0; left--) {
      length = readText(reader, length);
      texts.push(scratch.toString('latin1', 0, length));
      values.push(reader.varint());
    }
    this.#block = block;
    this.#values = values;
    this.#texts = texts;
    return texts;
  }
}

/** Checks the value of a text in {@link scratch}. @throws OpenError. */
function checkValue(isLeaf: boolean, length: number, value: number): void {
  if (isLeaf && length <= POSITION_BYTES) throw new OpenError();
  const start = isLeaf ? positionAt(length - POSITION_BYTES) : 0;
  if (start + (isLeaf ? Math.floor(value / 2) : value) > SEQ_MAX) throw new OpenError();
}

/** A position in {@link scratch}: readUIntBE takes five times as long. */
function positionAt(at: number): number {
  let value = 0;
  for (let byte = at; byte < at + POSITION_BYTES; byte++) value = value * 0x100 + (scratch[byte] as number);
  return value;
}

/**
 * The numbers of a page of creation positions, in order.
 *
 * @throws OpenError for bytes that {@link PageWriter} does not make.
 */
export function readNumbers(bytes: Buffer): number[] {
  const reader = new PackedReader(bytes);
  const numbers: number[] = [];
  let number = 0;
  for (let left = readHead(reader, CHANGED); left > 0; left--) {
    const step = reader.varint();
    number += step;
    if (step === 0 || number > SEQ_MAX) throw new OpenError();
    numbers.push(number);
  }
  reader.end();
  return numbers;
}

/** How many numbers from 0 satisfy a condition. It holds for none after the first one that fails. */
export function partition(count: number, isBefore: (at: number) => boolean): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (isBefore(middle)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** How many units two texts share at their beginning. */
export function sharedUnits(a: string, b: string): number {
  let shared = 0;
  while (shared < a.length && a.charCodeAt(shared) === b.charCodeAt(shared)) shared++;
  return shared;
}

/** The number of items of a page that must be of a kind. */
function readHead(reader: PackedReader, kind: number): number {
  if (reader.bytes[reader.skip(HEAD_BYTES)] !== kind) throw new OpenError();
  const items = reader.bytes.readUInt16BE(1);
  if (items === 0) throw new OpenError();
  return items;
}

/**
 * Reads a text into {@link scratch}, which has the one before it.
 *
 * @param before length of the one before it; -1 for none.
 * @returns its length.
 */
function readText(reader: PackedReader, before: number): number {
  const shared = reader.varint();
  const rest = reader.varint();
  const start = reader.skip(rest);
  const { bytes } = reader;
  const length = shared + rest;
  if (shared > Math.max(before, 0) || length > scratch.length) throw new OpenError();
  const isLater =
    before < 0 || (rest > 0 && (shared === before || (bytes[start] as number) > (scratch[shared] as number)));
  if (!isLater) throw new OpenError();
  for (let at = 0; at < rest; at++) scratch[shared + at] = bytes[start + at] as number;
  return length;
}
