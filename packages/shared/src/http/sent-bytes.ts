import type { Socket } from 'node:net';

/**
 * Counts the bytes of a connection that the system has accepted since then. The system notices what the other
 * end reads in steps of up to some MiB. Over TLS, a write counts once all of it is accepted.
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
