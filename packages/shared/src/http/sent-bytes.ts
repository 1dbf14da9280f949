import type { Socket } from 'node:net';

/**
 * Counts the bytes of a connection that the system has accepted since the counter was made. When the peer
 * reads, the count advances in steps of up to some MiB. Over TLS, it counts only complete writes.
 */
export class SentBytes {
  readonly #socket: Socket;
  readonly #before: number;
  #accepted = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.#before = this.#accept();
  }

  get total(): number {
    return this.#accept() - this.#before;
  }

  #accept(): number {
    const { _handle: handle } = this.#socket as Socket & {
      readonly _handle?: { readonly bytesWritten: number; readonly writeQueueSize: number } | null;
    };
    // A closed socket has no handle. TLS may count more in its queue than was written.
    const accepted = handle ? handle.bytesWritten - handle.writeQueueSize : 0;
    this.#accepted = Math.max(this.#accepted, accepted);
    return this.#accepted;
  }
}
