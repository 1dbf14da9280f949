import type { Socket } from 'node:net';

const PLACE = Symbol('place of a connection');

/** What is known of an accepted connection before its requests. */
export interface Place {
  /** Address of the peer, or its /64. */
  readonly network: string;
  /** Whether the peer is a trusted proxy. */
  readonly isProxy: boolean;
  /** Whether it has one of the last places, which are for this machine. */
  readonly ofReserve: boolean;
  /** Hears of the subject of the first request that was authorized. */
  readonly onPassed: (subject: string) => void;
}

interface Placed extends Place {
  /** The accepted connection, below TLS. */
  readonly socket: Socket;
  /** The name by which its requests take turns with others. */
  readonly turn: string;
  /** Whether a request of it was authorized. */
  hasPassed: boolean;
}

/** The place is stored on the socket, because a map would cost each request a look-up. */
export interface PlacedSocket extends Socket {
  [PLACE]?: Placed | undefined;
}

/** Open connections by name. Node does not say which one is below a TLS connection. */
const byName = new Map<string, Placed>();

export function placeConnection(socket: PlacedSocket, place: Place): void {
  const name = nameOf(socket);
  // Connections of a trusted proxy are of many clients.
  const turn = place.isProxy ? name : place.network;
  const placed = { ...place, socket, turn, hasPassed: false };
  socket[PLACE] = placed;
  byName.set(name, placed);
  socket.once('close', () => {
    if (byName.get(name) === placed) byName.delete(name);
  });
}

/** The place of a connection, or of the one below a TLS connection. */
export function placeOf(socket: PlacedSocket): Placed | undefined {
  socket[PLACE] ??= byName.get(nameOf(socket));
  return socket[PLACE];
}

/** Notes that a request of the connection was authorized, for a subject. */
export function notePassed(socket: PlacedSocket, subject: string): void {
  const place = placeOf(socket);
  if (place === undefined || place.hasPassed) return;
  place.hasPassed = true;
  place.onPassed(subject);
}

/** A name that is equal for a TLS connection and the one below it. */
function nameOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
