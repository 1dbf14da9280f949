import { OpenError } from '@bundoc/shared/crypto/aead';

/** Integers of an order's formats: up to 48 bits and a flag. */
const VARINT_MAX = 2 ** 49 - 1;

/**
 * Bytes of an integer: 7 bits a byte, least significant first. The high bit says that another byte follows.
 */
export function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes++;
  return bytes;
}

/** Writes an integer and returns the place after it. */
export function writeVarint(target: Buffer, at: number, value: number): number {
  let rest = value;
  let to = at;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) target[to++] = (rest % 0x80) + 0x80;
  target[to++] = rest;
  return to;
}

/** Reads plaintext of an order. What no writer makes throws OpenError, so that the index is built again. */
export class PackedReader {
  readonly bytes: Buffer;
  /** The next byte. */
  at = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  /** @throws OpenError unless the shortest form of an integer up to 2^49 - 1 follows. */
  varint(): number {
    const first = this.bytes[this.at++] ?? 0x80;
    if (first < 0x80) return first;
    let value = first - 0x80;
    for (let scale = 0x80; ; scale *= 0x80) {
      const byte = this.bytes[this.at++];
      if (byte === undefined || byte === 0) throw new OpenError();
      value += (byte % 0x80) * scale;
      if (value > VARINT_MAX) throw new OpenError();
      if (byte < 0x80) return value;
    }
  }

  /** Skips bytes and returns where they begin. @throws OpenError if there are fewer. */
  skip(bytes: number): number {
    const start = this.at;
    this.at += bytes;
    if (this.at > this.bytes.length) throw new OpenError();
    return start;
  }

  /** @throws OpenError unless all that follows is padding. */
  end(): void {
    for (let at = this.at; at < this.bytes.length; at++) if (this.bytes[at] !== 0) throw new OpenError();
  }
}
