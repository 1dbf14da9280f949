/** Reads exact numbers of bytes from a source with pieces of any size. */
export class ExactReader {
  readonly #source: AsyncIterator<Uint8Array>;
  #pieces: Buffer[] = [];
  #bytes = 0;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** @returns a separate buffer; undefined when fewer bytes are left. */
  async take(bytes: number): Promise<Buffer | undefined> {
    if (!(await this.#fill(bytes))) return undefined;
    const taken = Buffer.allocUnsafeSlow(bytes);
    for (let at = 0; at < bytes; ) {
      const piece = this.#pieces[0] as Buffer;
      const part = piece.subarray(0, bytes - at);
      taken.set(part, at);
      at += part.length;
      if (part.length === piece.length) this.#pieces.shift();
      else this.#pieces[0] = piece.subarray(part.length);
    }
    this.#bytes -= bytes;
    return taken;
  }

  async isAtEnd(): Promise<boolean> {
    return !(await this.#fill(1));
  }

  async #fill(bytes: number): Promise<boolean> {
    while (this.#bytes < bytes) {
      const { done, value } = await this.#source.next();
      if (done === true) return false;
      if (value.length === 0) continue;
      this.#pieces.push(Buffer.from(value.buffer, value.byteOffset, value.length));
      this.#bytes += value.length;
    }
    return true;
  }
}
