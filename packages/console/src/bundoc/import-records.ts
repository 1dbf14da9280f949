import { ElementSplitter } from '../parts/json-elements.ts';

/** A document of a file, with its exact text. */
export interface ImportRecord {
  readonly text: string;
  /** The number of its line, or its position in the array, from 1. */
  readonly number: number;
  /** Bytes of the file that were read up to it. */
  readonly bytesRead: number;
}

/** Maximum characters of a record: the largest document with its metadata. */
export const RECORD_CHARS_MAX = 16_842_752;

/**
 * The documents of a file: the elements of one JSON array or the lines of NDJSON, depending on its beginning.
 * Only one record and a piece of the file are in memory.
 *
 * @throws TypeError for invalid UTF-8; RangeError for a record longer than any document, and for an
 *   incomplete array.
 */
export async function* recordsOf(file: Blob, signal: AbortSignal): AsyncGenerator<ImportRecord, void, void> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const reader = file.stream().getReader();
  let records: Splitter | undefined;
  let bytesRead = 0;
  let number = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      signal.throwIfAborted();
      bytesRead += value?.length ?? 0;
      const piece = done ? decoder.decode() : decoder.decode(value, { stream: true });
      if (records === undefined && piece.trimStart() === '' && !done) continue;
      records ??= piece.trimStart().startsWith('[') ? new ArraySplitter() : new LineSplitter();
      for (const text of done ? records.end(piece) : records.push(piece)) {
        number++;
        if (text !== '') yield { text, number, bytesRead };
      }
      if (done) return;
      if (records.pendingChars > RECORD_CHARS_MAX)
        throw new RangeError(`Record ${number + 1} is longer than any document.`);
    }
  } finally {
    await reader.cancel();
  }
}

interface Splitter {
  readonly pendingChars: number;
  push(piece: string): readonly string[];
  end(piece: string): readonly string[];
}

class LineSplitter implements Splitter {
  #rest = '';

  get pendingChars(): number {
    return this.#rest.length;
  }

  push(piece: string): readonly string[] {
    const lines: string[] = [];
    let from = 0;
    for (let at = piece.indexOf('\n'); at !== -1; at = piece.indexOf('\n', from)) {
      lines.push((this.#rest + piece.slice(from, at)).trim());
      this.#rest = '';
      from = at + 1;
    }
    this.#rest += piece.slice(from);
    return lines;
  }

  end(piece: string): readonly string[] {
    return this.push(`${piece}\n`);
  }
}

class ArraySplitter implements Splitter {
  readonly #elements = new ElementSplitter(0);

  get pendingChars(): number {
    return this.#elements.pendingChars;
  }

  push(piece: string): readonly string[] {
    return this.#elements.push(piece);
  }

  end(piece: string): readonly string[] {
    const last = this.push(piece);
    if (!this.#elements.isComplete) throw new RangeError('The file ends within its array.');
    if (this.#elements.outside.trim() !== '[]')
      throw new RangeError('Something follows the array. A file has one array, or one document per line.');
    return last;
  }
}
