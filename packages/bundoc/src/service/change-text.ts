import { encodeCursor } from '@bundoc/shared/contract/cursor';
import type { Position } from '../engine/port.ts';
import type { FeedEvent, FeedPage, FeedPlace } from './read-changes.ts';

/** Where to go on from, as clients give it back. */
export function cursorOf({ position, horizon }: FeedPlace): string {
  // Behind it the horizon means nothing; so all who have caught up have the same cursors.
  return encodeCursor('changes', { position, horizon: horizon > position ? horizon : 0 });
}

/** A change as JSON on one line. */
export function changeText({ change, text, isUnreadable }: FeedEvent): Buffer {
  const { ref, rev, deleted } = change;
  const head =
    `{"_collection":${JSON.stringify(ref.collection)},"_id":${JSON.stringify(ref.id)},"_rev":"${rev}"` +
    `${deleted ? ',"deleted":true' : ''}${isUnreadable ? ',"unreadable":true' : ''}`;
  if (text === undefined) return Buffer.from(`${head}}`);
  return Buffer.concat([Buffer.from(`${head},"doc":`), onOneLine(text), CLOSE]);
}

/**
 * JSON text without line breaks. They stand between its tokens only, since a string must not hold one (RFC
 * 8259, section 7); there a space means as much.
 */
function onOneLine(json: Buffer): Buffer {
  if (!json.includes(LF) && !json.includes(CR)) return json;
  const line = Buffer.from(json);
  for (const [at, byte] of line.entries()) if (byte === LF || byte === CR) line[at] = SPACE;
  return line;
}

/** Events of one page as server-sent events: made once, sent to all who want the same. */
export class EventBatch {
  readonly #blocks: Buffer;
  /** Where each event ends, and its position. */
  readonly #ends: readonly number[];
  readonly #positions: readonly Position[];

  constructor({ events, horizon }: FeedPage) {
    const parts: Buffer[] = [];
    const ends: number[] = [];
    let bytes = 0;
    for (const event of events) {
      const { position } = event.change;
      const id = Buffer.from(`id: ${cursorOf({ position, horizon })}\nevent: change\ndata: `);
      const text = changeText(event);
      parts.push(id, text, END_OF_BLOCK);
      bytes += id.length + text.length + END_OF_BLOCK.length;
      ends.push(bytes);
    }
    this.#blocks = Buffer.concat(parts, bytes);
    this.#ends = ends;
    this.#positions = events.map(({ change }) => change.position);
  }

  /** The events behind a position; empty when there are none. */
  after(position: Position): Buffer {
    const first = this.#positions.findIndex((at) => at > position);
    if (first === 0) return this.#blocks;
    return first === -1 ? EMPTY : this.#blocks.subarray(this.#ends[first - 1]);
  }
}

/** Says that nothing else happened up to a place. */
export function heartbeatOf(place: FeedPlace): string {
  return `id: ${cursorOf(place)}\nevent: heartbeat\ndata: {}\n\n`;
}

const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const CLOSE = Buffer.from('}');
const END_OF_BLOCK = Buffer.from('\n\n');
const EMPTY = Buffer.alloc(0);
