import { InvalidLine, LINE_BYTES_MAX } from '../operations/ndjson.ts';

/** One value of a source, as its exact bytes. */
export interface JsonElement {
  readonly bytes: Buffer;
  /** The line on which it begins, counted from 1. */
  readonly line: number;
  /** Offset in the source behind it. */
  readonly end: number;
}

export interface ElementRules {
  /**
   * The members of a root object whose arrays have the elements. Without them, a root object is an element
   * itself. A root array always has elements.
   */
  readonly lists?: readonly string[];
  /** Whether a root object with only these members, and without a list, has no elements. */
  readonly isEmptyPage?: (names: readonly string[]) => boolean;
}

/** How many names of a root object an error lists, and the characters of each. */
const NAMES_MAX = 5;
const NAME_BYTES_MAX = 40;

/**
 * Finds values in a source of JSON texts, of which it holds only one value at a time. The text of a value may
 * not be JSON: only strings and brackets are checked.
 *
 * @throws InvalidLine where the structure around the values is not as the rules say, or the source is cut.
 */
export async function* elementsOf(
  source: AsyncIterable<Buffer>,
  rules: ElementRules,
): AsyncGenerator<JsonElement, void, void> {
  const scan = new ElementScan(rules);
  for await (const chunk of source) yield* scan.take(chunk);
  scan.end();
}

/** What may follow, apart from white space. While a value is open, what may follow it. */
type Expected =
  | 'root'
  | 'firstItem'
  | 'item'
  | 'afterItem'
  | 'firstName'
  | 'name'
  | 'colon'
  | 'value'
  | 'afterValue';

/** A value that has begun. */
interface Open {
  readonly kind: 'element' | 'name' | 'skipped';
  readonly line: number;
  readonly isScalar: boolean;
  readonly parts: Buffer[];
  bytes: number;
}

class ElementScan {
  readonly #rules: ElementRules;
  #expected: Expected = 'root';
  /** The root object around the values. */
  #object: { readonly line: number; readonly names: string[]; hasList: boolean } | undefined;
  #line = 1;
  #offset = 0;
  #open: Open | undefined;
  #depth = 0;
  #isInString = false;
  #isEscaped = false;

  constructor(rules: ElementRules) {
    this.#rules = rules;
  }

  *take(chunk: Buffer): Generator<JsonElement, void, void> {
    let from = 0;
    const start = this.#offset === 0 && chunk.subarray(0, BOM.length).equals(BOM) ? BOM.length : 0;
    for (let at = start; at < chunk.length; at++) {
      const byte = chunk[at] as number;
      if (byte === LF) this.#line++;
      if (this.#open !== undefined) {
        const ended = this.#within(this.#open, byte);
        if (ended === undefined) continue;
        const end = ended === 'with' ? at + 1 : at;
        const element = this.#close(this.#open, chunk.subarray(from, end), this.#offset + end);
        if (element !== undefined) yield element;
        if (ended === 'with') continue;
      }
      if (isSpace(byte)) continue;
      this.#expected = this.#between(byte);
      from = at;
    }
    if (this.#open !== undefined) this.#keep(this.#open, Buffer.from(chunk.subarray(from)));
    this.#offset += chunk.length;
  }

  end(): void {
    if (this.#expected === 'root' && this.#open === undefined) return;
    throw new InvalidLine(
      this.#open?.kind === 'element'
        ? `the document that begins in line ${this.#open.line} has no end: the source is cut off, or a bracket is missing`
        : `the source ends too early, in line ${this.#line}: it is cut off`,
    );
  }

  /** Takes a byte outside of values. @returns what may follow it, or the value that it begins. */
  #between(byte: number): Expected {
    const { lists } = this.#rules;
    switch (this.#expected) {
      case 'root':
        if (byte === OPEN_BRACKET) return 'firstItem';
        if (byte !== OPEN_BRACE) throw this.#fault('an object or an array is expected');
        if (lists === undefined) return this.#begin('element', byte, 'root');
        this.#object = { line: this.#line, names: [], hasList: false };
        return 'firstName';
      case 'firstItem':
      case 'afterItem':
        if (byte === CLOSE_BRACKET) return this.#object === undefined ? 'root' : 'afterValue';
        if (this.#expected === 'firstItem') return this.#begin('element', byte, 'afterItem');
        if (byte !== COMMA) throw this.#fault('a comma is missing between two documents');
        return 'item';
      case 'item':
        return this.#begin('element', byte, 'afterItem');
      case 'firstName':
      case 'afterValue':
        if (byte === CLOSE_BRACE) return this.#endObject();
        if (this.#expected === 'firstName') return this.#beginName(byte);
        if (byte !== COMMA) throw this.#fault('a comma is missing between two members');
        return 'name';
      case 'name':
        return this.#beginName(byte);
      case 'colon':
        if (byte !== COLON) throw this.#fault('a colon is expected');
        return 'value';
      case 'value': {
        const isList = byte === OPEN_BRACKET && lists?.includes(this.#object?.names.at(-1) ?? '') === true;
        if (!isList || this.#object === undefined) return this.#begin('skipped', byte, 'afterValue');
        this.#object.hasList = true;
        return 'firstItem';
      }
    }
  }

  #beginName(byte: number): Expected {
    if (byte !== QUOTE) throw this.#fault('a name in double quotes is expected');
    return this.#begin('name', byte, 'colon');
  }

  #begin(kind: Open['kind'], byte: number, after: Expected): Expected {
    if (byte === COMMA || byte === COLON || byte === CLOSE_BRACE || byte === CLOSE_BRACKET)
      throw this.#fault('a value is missing');
    const isContainer = byte === OPEN_BRACE || byte === OPEN_BRACKET;
    this.#depth = isContainer ? 1 : 0;
    this.#isInString = byte === QUOTE;
    this.#open = { kind, line: this.#line, isScalar: !isContainer && byte !== QUOTE, parts: [], bytes: 0 };
    return after;
  }

  /** Takes a byte of the open value. @returns whether the value ends with this byte, or before it. */
  #within({ isScalar }: Open, byte: number): 'with' | 'before' | undefined {
    if (this.#isInString) {
      if (this.#isEscaped) this.#isEscaped = false;
      else if (byte === BACKSLASH) this.#isEscaped = true;
      else if (byte === QUOTE) {
        this.#isInString = false;
        if (this.#depth === 0) return 'with';
      }
      return undefined;
    }
    const isClosing = byte === CLOSE_BRACKET || byte === CLOSE_BRACE;
    if (isScalar) return isClosing || byte === COMMA || isSpace(byte) ? 'before' : undefined;
    if (byte === QUOTE) this.#isInString = true;
    else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) this.#depth++;
    else if (isClosing && --this.#depth === 0) return 'with';
    return undefined;
  }

  #keep(open: Open, piece: Buffer): void {
    if (open.kind === 'skipped') return;
    open.parts.push(piece);
    open.bytes += piece.length;
    if (open.bytes > LINE_BYTES_MAX)
      throw new InvalidLine(
        `the document that begins in line ${open.line} is longer than any document: does --format fit this file?`,
      );
  }

  #close(open: Open, piece: Buffer, end: number): JsonElement | undefined {
    this.#open = undefined;
    this.#keep(open, piece);
    const bytes = Buffer.concat(open.parts);
    if (open.kind === 'element') return { bytes, line: open.line, end };
    if (open.kind === 'name' && this.#object !== undefined) {
      const { names } = this.#object;
      if (names.length === NAMES_MAX) names.pop();
      names.push(bytes.toString('utf8', 1, Math.min(bytes.length - 1, NAME_BYTES_MAX)));
    }
    return undefined;
  }

  #endObject(): 'root' {
    const { line, names, hasList } = this.#object ?? { line: 0, names: [], hasList: true };
    this.#object = undefined;
    const { lists = [], isEmptyPage } = this.#rules;
    if (hasList || isEmptyPage?.(names)) return 'root';
    const has = names.length === 0 ? 'no members' : names.join(', ');
    throw new InvalidLine(
      `the object that begins in line ${line} has no array ${lists.join(' or ')}, but ${has}: does --format fit this file?`,
    );
  }

  #fault(what: string): InvalidLine {
    return new InvalidLine(`line ${this.#line} is not JSON: ${what}`);
  }
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === LF || byte === 0x0d || byte === 0x09;
}

/** A byte order mark of UTF-8, which may be before the text. */
const BOM = Buffer.from('\uFEFF');
const LF = 0x0a;
const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
