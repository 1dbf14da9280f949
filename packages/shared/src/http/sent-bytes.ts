import type { Socket } from 'node:net';

/**
 * Counts the bytes of a connection that the system has accepted since then. A large write leaves in pieces:
 * they are counted if the count is read while it leaves.
 */
export class SentBytes {
  readonly #socket: Socket;
  #standing: Standing;
  #total = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.#standing = standingOf(socket);
  }

  get total(): number {
    const before = this.#standing;
    this.#standing = standingOf(this.#socket);
    const { written, queued } = this.#standing;
    this.#total += written - before.written + Math.max(0, before.queued - queued);
    return this.#total;
  }
}

interface Standing {
  /** Bytes that Node has passed to the system. */
  readonly written: number;
  /** Bytes in Node's queue that the system has not accepted. */
  readonly queued: number;
}

function standingOf(socket: Socket): Standing {
  const { _handle: handle } = socket as Socket & {
    readonly _handle?: { readonly writeQueueSize?: number } | null;
  };
  return { written: socket.bytesWritten - socket.writableLength, queued: handle?.writeQueueSize ?? 0 };
}
