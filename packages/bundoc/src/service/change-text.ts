import { encodeCursor } from '@bundoc/shared/contract/cursor';
import type { Position } from '../engine/port/port.ts';
import type { Work } from '../work/work.ts';
import type { FeedEvent, FeedPage, FeedPlace } from './read-changes.ts';

/** The cursor to resume from, as clients return it. */
export function cursorOf({ position, horizon }: FeedPlace): string {
  // Beyond it, the horizon has no meaning, so all up-to-date readers have equal cursors.
  return encodeCursor('changes', { position, horizon: horizon > position ? horizon : 0 });
}

/** Changes as JSON, one line each. Yields between the steps. */
export async function changeTexts(events: readonly FeedEvent[], work: Work): Promise<readonly Buffer[]> {
  const texts: Buffer[] = [];
  for (const event of events) {
    const turn = work.pause();
    if (turn !== undefined) await turn;
    const { text } = event;
    texts.push(changeText(event, text === undefined ? undefined : await onOneLine(text, work)));
  }
  return texts;
}

function changeText({ change, isUnreadable }: FeedEvent, line: Buffer | undefined): Buffer {
  const { ref, rev, deleted } = change;
  const head =
    `{"_collection":${JSON.stringify(ref.collection)},"_id":${JSON.stringify(ref.id)},"_rev":"${rev}"` +
    `${deleted ? ',"deleted":true' : ''}${isUnreadable ? ',"unreadable":true' : ''}`;
  if (line === undefined) return Buffer.from(`${head}}`);
  return Buffer.concat([Buffer.from(`${head},"doc":`), line, CLOSE]);
}

/**
 * A JSON text without line breaks. They can only be whitespace between tokens, because a string must not
 * contain one (RFC 8259, section 7); so spaces replace them.
 */
async function onOneLine(json: Buffer, work: Work): Promise<Buffer> {
  if (!json.includes(LF) && !json.includes(CR)) return json;
  const line = Buffer.from(json);
  for (let from = 0; from < line.length; from += STEP_BYTES) {
    const turn = work.pause();
    if (turn !== undefined) await turn;
    const end = Math.min(line.length, from + STEP_BYTES);
    for (let at = from; at < end; at++) if (line[at] === LF || line[at] === CR) line[at] = SPACE;
  }
  return line;
}

/** Events of one page as server-sent events, encoded once for all readers with the same filter. */
export class EventBatch {
  readonly #blocks: Buffer;
  /** The end of each event, and its position. */
  readonly #ends: readonly number[];
  readonly #positions: readonly Position[];

  /** @param texts of the page's events, from {@link changeTexts}. */
  constructor({ events, horizon }: FeedPage, texts: readonly Buffer[]) {
    const parts: Buffer[] = [];
    const ends: number[] = [];
    let bytes = 0;
    for (const [index, event] of events.entries()) {
      const { position } = event.change;
      const id = Buffer.from(`id: ${cursorOf({ position, horizon })}\nevent: change\ndata: `);
      const text = texts[index] as Buffer;
      parts.push(id, text, END_OF_BLOCK);
      bytes += id.length + text.length + END_OF_BLOCK.length;
      ends.push(bytes);
    }
    this.#blocks = Buffer.concat(parts, bytes);
    this.#ends = ends;
    this.#positions = events.map(({ change }) => change.position);
  }

  /** The events after a position; empty when there are none. */
  after(position: Position): Buffer {
    const first = this.#positions.findIndex((at) => at > position);
    if (first === 0) return this.#blocks;
    return first === -1 ? EMPTY : this.#blocks.subarray(this.#ends[first - 1]);
  }
}

/** States that there are no further events up to a position. */
export function heartbeatOf(place: FeedPlace): string {
  return `id: ${cursorOf(place)}\nevent: heartbeat\ndata: {}\n\n`;
}

/** Bytes processed in one step. */
const STEP_BYTES = 262_144;
const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const CLOSE = Buffer.from('}');
const END_OF_BLOCK = Buffer.from('\n\n');
const EMPTY = Buffer.alloc(0);
