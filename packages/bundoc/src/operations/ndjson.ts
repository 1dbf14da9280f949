/** A non-empty line of NDJSON. */
export interface Line {
  /** Without its line end. */
  readonly text: string;
  /** Counted from 1. */
  readonly number: number;
  /** Offset in the source of the end of this line. */
  readonly end: number;
}

/** Maximum bytes of a line: the largest document, and its metadata. */
export const LINE_BYTES_MAX = 16_842_752;

/** An invalid input; the message names the line. */
export class InvalidLine extends Error {
  override readonly name = 'InvalidLine';
}

/**
 * The non-empty lines of a source, with bounded memory.
 *
 * @param start the number of lines and bytes before the source in the whole input.
 * @throws InvalidLine for a line that is too long or not UTF-8.
 */
export async function* linesOf(
  source: AsyncIterable<Uint8Array>,
  start: Pick<Line, 'number' | 'end'> = { number: 0, end: 0 },
): AsyncGenerator<Line, void, void> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let rest: Buffer[] = [];
  let restBytes = 0;
  let { number, end } = start;
  const lineOf = (bytes: Buffer): Line | undefined => {
    number++;
    let text: string;
    try {
      text = decoder.decode(bytes);
    } catch (cause) {
      throw new InvalidLine(`line ${number} is not UTF-8`, { cause });
    }
    return text.trim() === '' ? undefined : { text, number, end };
  };
  for await (const chunk of source) {
    let from = 0;
    for (let at = chunk.indexOf(LF); at !== -1; at = chunk.indexOf(LF, from)) {
      const piece = Buffer.from(chunk.buffer, chunk.byteOffset + from, at - from);
      const bytes = rest.length === 0 ? piece : Buffer.concat([...rest, piece]);
      rest = [];
      restBytes = 0;
      end += bytes.length + 1;
      from = at + 1;
      const line = lineOf(bytes);
      if (line !== undefined) yield line;
    }
    if (from === chunk.length) continue;
    rest.push(Buffer.from(chunk.subarray(from)));
    restBytes += chunk.length - from;
    if (restBytes > LINE_BYTES_MAX) throw new InvalidLine(`line ${number + 1} is longer than any document`);
  }
  if (restBytes === 0) return;
  end += restBytes;
  const line = lineOf(Buffer.concat(rest));
  if (line !== undefined) yield line;
}

const LF = 0x0a;
