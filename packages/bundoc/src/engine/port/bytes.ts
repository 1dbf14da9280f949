import assert from 'node:assert/strict';

/** Up to here, a loop is faster than a native call. */
const SHORT_BYTES = 32;

/** Writes a binary record into a growing buffer. Integers are big-endian. */
export class ByteWriter {
  #buffer: Buffer;
  #length = 0;

  constructor(capacity = 4_096) {
    // Not from Node's pool: long-lived records would keep whole pool slabs in memory.
    this.#buffer = Buffer.allocUnsafeSlow(capacity);
  }

  get length(): number {
    return this.#length;
  }

  u8(value: number): this {
    this.#length = this.#room(1).writeUInt8(value, this.#length);
    return this;
  }

  u16(value: number): this {
    this.#length = this.#room(2).writeUInt16BE(value, this.#length);
    return this;
  }

  u32(value: number): this {
    this.#length = this.#room(4).writeUInt32BE(value, this.#length);
    return this;
  }

  /** A count or a time in milliseconds, up to 2^48. */
  u48(value: number): this {
    this.#length = this.#room(6).writeUIntBE(value, this.#length, 6);
    return this;
  }

  /** Bytes without a length prefix: all, or a part. */
  raw(bytes: Uint8Array, start = 0, length = bytes.length): this {
    const buffer = this.#room(length);
    const to = this.#length;
    if (length > SHORT_BYTES) buffer.set(bytes.subarray(start, start + length), to);
    else for (let at = 0; at < length; at++) buffer[to + at] = bytes[start + at] as number;
    this.#length += length;
    return this;
  }

  /** Text of up to 65,535 bytes of UTF-8, with a length prefix. */
  text(value: string): this {
    const bytes = Buffer.byteLength(value);
    this.u16(bytes);
    this.#room(bytes).write(value, this.#length);
    this.#length += bytes;
    return this;
  }

  /** Bytes with a length prefix. */
  blob(bytes: Uint8Array): this {
    return this.u32(bytes.length).raw(bytes);
  }

  /** Appends space for the caller to fill immediately: the next write may move the buffer. */
  reserve(bytes: number): Buffer {
    const start = this.#length;
    this.#room(bytes);
    this.#length += bytes;
    return this.#buffer.subarray(start, this.#length);
  }

  /** The written bytes. The writer must not be used afterwards. */
  finish(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  #room(bytes: number): Buffer {
    const need = this.#length + bytes;
    if (need > this.#buffer.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(need, this.#buffer.length * 2));
      this.#buffer.copy(larger, 0, 0, this.#length);
      this.#buffer = larger;
    }
    return this.#buffer;
  }
}

/** Reads what {@link ByteWriter} wrote. The bytes are authentic, so an invalid one is a defect and throws. */
export class ByteReader {
  readonly #buffer: Buffer;
  #at = 0;

  constructor(buffer: Buffer) {
    this.#buffer = buffer;
  }

  get done(): boolean {
    return this.#at === this.#buffer.length;
  }

  u8(): number {
    return this.#buffer.readUInt8(this.#advance(1));
  }

  u16(): number {
    return this.#buffer.readUInt16BE(this.#advance(2));
  }

  u32(): number {
    return this.#buffer.readUInt32BE(this.#advance(4));
  }

  u48(): number {
    return this.#buffer.readUIntBE(this.#advance(6), 6);
  }

  /** A view, not a copy. */
  raw(bytes: number): Buffer {
    const at = this.#advance(bytes);
    return this.#buffer.subarray(at, at + bytes);
  }

  text(): string {
    const bytes = this.u16();
    const at = this.#advance(bytes);
    return this.#buffer.toString('utf8', at, at + bytes);
  }

  blob(): Buffer {
    return this.raw(this.u32());
  }

  #advance(bytes: number): number {
    const at = this.#at;
    this.#at += bytes;
    assert(this.#at <= this.#buffer.length, 'the record is shorter than it says');
    return at;
  }
}
