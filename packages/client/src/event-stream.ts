/** A server-sent event (HTML, section 9.2.6). */
export interface ServerSentEvent {
  readonly type: string;
  readonly data: string;
  /** The last id so far; undefined before the first one. */
  readonly id: string | undefined;
}

/** Characters of one event at most. Bundoc sends no larger one. */
const EVENT_CHARS_MAX = 134_217_728;

/** Reads an event stream, chunk by chunk. */
export class EventStreamParser {
  #rest = '';
  /** How far `#rest` was searched for the end of a line. */
  #searched = 0;
  #type = '';
  #data: string[] = [];
  #id: string | undefined;
  #isFirst = true;

  /** @returns the events that the chunk completes. @throws RangeError for one that is too long. */
  push(chunk: string): ServerSentEvent[] {
    const events: ServerSentEvent[] = [];
    this.#rest += chunk;
    if (this.#isFirst && this.#rest.length > 0) {
      this.#isFirst = false;
      if (this.#rest.startsWith('\uFEFF')) this.#rest = this.#rest.slice(1);
    }
    let start = 0;
    for (;;) {
      const end = endOfLine(this.#rest, Math.max(start, this.#searched));
      if (end === undefined) break;
      const event = this.#line(this.#rest.slice(start, end.at));
      if (event !== undefined) events.push(event);
      start = end.next;
    }
    this.#rest = this.#rest.slice(start);
    // A CR at the end may be the first half of a CR LF.
    this.#searched = this.#rest.endsWith('\r') ? this.#rest.length - 1 : this.#rest.length;
    if (this.#rest.length > EVENT_CHARS_MAX) throw new RangeError('an event is too long');
    return events;
  }

  #line(line: string): ServerSentEvent | undefined {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    if (colon === 0) return undefined; // A comment.
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (field === 'event') this.#type = value;
    else if (field === 'data') this.#data.push(value);
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    return undefined;
  }

  #dispatch(): ServerSentEvent | undefined {
    const [type, data] = [this.#type, this.#data];
    this.#type = '';
    this.#data = [];
    if (data.length === 0) return undefined;
    return { type: type === '' ? 'message' : type, data: data.join('\n'), id: this.#id };
  }
}

/**
 * Where the next line ends, and where the following one begins: at LF, CR LF, or CR. Undefined when the line
 * is incomplete.
 */
function endOfLine(text: string, from: number): { at: number; next: number } | undefined {
  const lf = text.indexOf('\n', from);
  const cr = text.indexOf('\r', from);
  if (cr !== -1 && (lf === -1 || cr < lf)) {
    if (cr + 1 === text.length) return undefined;
    return { at: cr, next: text[cr + 1] === '\n' ? cr + 2 : cr + 1 };
  }
  return lf === -1 ? undefined : { at: lf, next: lf + 1 };
}
