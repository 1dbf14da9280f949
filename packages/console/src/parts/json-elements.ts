const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/** Maximum characters outside the array. */
const OUTSIDE_CHARS_MAX = 1_048_576;

/**
 * Finds the elements of an array in JSON that arrives in pieces, each with its exact text. It does not parse:
 * the caller must check whether an element is JSON.
 */
export class ElementSplitter {
  readonly #arrayDepth: number;
  readonly #charsMax: number;
  #depth = 0;
  #isInString = false;
  #isEscaped = false;
  #state: 'before' | 'inside' | 'behind' = 'before';
  #element = '';
  #found = 0;
  #outside = '';

  /**
   * @param arrayDepth nesting depth of the array: the first array at this depth is used.
   * @param charsMax maximum characters to keep of an element.
   */
  constructor(arrayDepth: 0 | 1, charsMax = Number.POSITIVE_INFINITY) {
    this.#arrayDepth = arrayDepth;
    this.#charsMax = charsMax;
  }

  /** Everything except the elements. */
  get outside(): string {
    return this.#outside;
  }

  /** Whether the array is complete. */
  get isComplete(): boolean {
    return this.#state === 'behind';
  }

  /** Characters of the incomplete element. */
  get pendingChars(): number {
    return this.#element.length;
  }

  /** @returns the elements that the piece completes. */
  push(piece: string): string[] {
    const elements: string[] = [];
    let from = 0;
    const take = (to: number) => {
      this.#take(piece.slice(from, to));
      from = to;
    };
    const complete = (at: number) => {
      take(at);
      const text = this.#element.trim();
      this.#element = '';
      // `[]` has no element, and `[1,]` has an empty one, which is not JSON.
      if (text !== '' || this.#found > 0 || piece.charCodeAt(at) === COMMA) elements.push(text);
      this.#found++;
    };
    for (let at = 0; at < piece.length; at++) {
      const code = piece.charCodeAt(at);
      if (this.#isInString) {
        if (this.#isEscaped) this.#isEscaped = false;
        else if (code === BACKSLASH) this.#isEscaped = true;
        else if (code === QUOTE) this.#isInString = false;
      } else if (code === QUOTE) this.#isInString = true;
      else if (code === OPEN_ARRAY || code === OPEN_OBJECT) {
        if (code === OPEN_ARRAY && this.#state === 'before' && this.#depth === this.#arrayDepth) {
          take(at + 1);
          this.#state = 'inside';
        }
        this.#depth++;
      } else if (code === CLOSE_ARRAY || code === CLOSE_OBJECT) {
        this.#depth--;
        if (this.#state === 'inside' && this.#depth === this.#arrayDepth) {
          complete(at);
          this.#state = 'behind';
        }
      } else if (code === COMMA && this.#state === 'inside' && this.#depth === this.#arrayDepth + 1) {
        complete(at);
        from = at + 1;
      }
    }
    take(piece.length);
    return elements;
  }

  #take(text: string): void {
    if (this.#state === 'inside') this.#element += text.slice(0, this.#charsMax - this.#element.length);
    else {
      this.#outside += text;
      if (this.#outside.length > OUTSIDE_CHARS_MAX) throw new Error('too much text surrounds the array');
    }
  }
}

/** Characters to process before yielding: some milliseconds. */
const PIECE = 524_288;

/** An answer that is an object with an array as its first member. */
export interface SplitAnswer {
  /** The elements of the array, truncated to a number of characters. */
  readonly elements: readonly string[];
  /** The other members. */
  readonly rest: Readonly<Record<string, unknown>>;
}

/** Splits an answer of any length without blocking the page for long. */
export async function splitInTurns(
  text: string,
  charsMax: number,
  signal: AbortSignal,
): Promise<SplitAnswer> {
  const splitter = new ElementSplitter(1, charsMax);
  const elements: string[] = [];
  for (let at = 0; at < text.length; at += PIECE) {
    if (at > 0) await nextTurn();
    signal.throwIfAborted();
    for (const element of splitter.push(text.slice(at, at + PIECE))) elements.push(element);
  }
  return { elements, rest: JSON.parse(splitter.outside) as Record<string, unknown> };
}

/** Lets the page render and handle input. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve);
  });
}
