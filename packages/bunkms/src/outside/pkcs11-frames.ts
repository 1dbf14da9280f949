import assert from 'node:assert/strict';
import { deserialize, serialize } from 'node:v8';

/** Much more than the longest call or answer has. */
const FRAME_BYTES_MAX = 65_536;
const HEAD_BYTES = 4;

/** A value for a pipe: length (4, big-endian), then the value as V8 serializes it. The caller wipes it. */
export function frameOf(value: unknown): Buffer {
  const body = serialize(value);
  const frame = Buffer.alloc(HEAD_BYTES + body.length);
  frame.writeUInt32BE(body.length);
  body.copy(frame, HEAD_BYTES);
  body.fill(0);
  return frame;
}

/**
 * Reads the frames of a pipe. Node's own messages between processes would end the parent when a module writes
 * to their pipe.
 */
export class FrameReader {
  #bytes = Buffer.alloc(0);

  /**
   * @param chunk what has arrived; wiped.
   * @returns the values that are complete. @throws for bytes that are no frame.
   */
  read(chunk: Buffer): unknown[] {
    const bytes = Buffer.concat([this.#bytes, chunk]);
    for (const old of [this.#bytes, chunk]) old.fill(0);
    const values: unknown[] = [];
    let at = 0;
    while (bytes.length - at >= HEAD_BYTES) {
      const length = bytes.readUInt32BE(at);
      assert(length <= FRAME_BYTES_MAX, 'a frame is too long');
      const end = at + HEAD_BYTES + length;
      if (bytes.length < end) break;
      // Values have views of what they are made of, which is theirs alone.
      values.push(deserialize(Buffer.from(bytes.subarray(at + HEAD_BYTES, end))));
      at = end;
    }
    this.#bytes = Buffer.from(bytes.subarray(at));
    bytes.fill(0);
    return values;
  }
}
