import type { IncomingHttpHeaders } from 'node:http';
import { BlockList, isIPv6, type Socket } from 'node:net';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Pool } from '../admission/pool.ts';
import { callerNetwork, canonicalAddress } from '../runtime/addresses.ts';
import type { Clock } from '../runtime/clock.ts';
import type { ShareKey } from '../shares/share-key.ts';
import { type PlacedSocket, placeConnection, placeOf } from './connection-place.ts';

/** Maximum connections of a process, and of one address (IPv6: /64). */
const CONNECTIONS_MAX = 4_096;
export const CONNECTIONS_OF_ADDRESS_MAX = 256;
/**
 * The last connections, which only this machine may use, beyond the limit per address. They are for health
 * checks and commands. A proxy on this machine cannot use them for its clients.
 */
const RESERVE = 64;
/** The owner of connections of which no request was authorized. */
const STRANGER = '';
/** How long a connection may be silent before its first byte. */
export const FIRST_BYTE_MS = 5_000;
/**
 * How long a refused connection stays open, unread, and how many do. Otherwise a client that connects again
 * at once would keep the event loop busy with refusals.
 */
export const REFUSED_MS = 1_000;
export const REFUSED_MAX = 1_024;

export interface ConnectionsOptions {
  /** Prefix of the names of its shares, when a process has several instances. */
  readonly prefix?: string;
  readonly clock: Clock;
  /** {@link CONNECTIONS_MAX} by default. */
  readonly max?: number | undefined;
  /** {@link CONNECTIONS_OF_ADDRESS_MAX} by default. */
  readonly ofAddressMax?: number | undefined;
  /** Identifies trusted proxies, whose connections are not limited by address. */
  readonly isProxy?: ((address: string) => boolean) | undefined;
}

/**
 * Limits the connections of one or more listeners. The subject of the share is the address, because no token
 * is known yet.
 *
 * One class, because the place of a connection, its silence and its right to stay end together.
 */
export class Connections {
  readonly share: Pool;
  /** Open requests from proxies, by the address of the proxy's client. */
  readonly forwarded: Pool;
  /** Whether a peer is a trusted proxy, so that its `X-Forwarded-For` counts; undefined without proxies. */
  readonly isProxy: ((address: string) => boolean) | undefined;
  readonly #ofAddressMax: number;
  readonly #reserve: number;
  #ofReserve = 0;
  /**
   * Connections that may close to make room, with what counts them, the oldest first: by the subject of their
   * first request, or {@link STRANGER}.
   */
  readonly #byOwner = new Map<string, Map<PlacedSocket, Disposable>>();
  /** Connections beyond a limit that are not closed yet. */
  readonly #refused = new Set<Socket>();
  #cuts = 0;

  constructor(options: ConnectionsOptions) {
    const { prefix = '', clock, isProxy } = options;
    const { max = CONNECTIONS_MAX, ofAddressMax = CONNECTIONS_OF_ADDRESS_MAX } = options;
    const common = { capacity: max, subjectMax: ofAddressMax, waitMs: 0, clock };
    this.share = new Pool({ ...common, name: `${prefix}connections` });
    this.forwarded = new Pool({ ...common, name: `${prefix}requests through proxies` });
    this.#ofAddressMax = ofAddressMax;
    this.#reserve = Math.min(RESERVE, Math.floor(max / 8));
    this.isProxy = isProxy;
  }

  /** Connections that were closed because they sent nothing. */
  get cuts(): number {
    return this.#cuts;
  }

  /**
   * Counts a connection until it closes, and closes it if it stays silent.
   *
   * @returns false when it exceeds a limit: it is closed soon, and must not be read.
   */
  accept(socket: Socket): boolean {
    const peer = canonicalAddress(socket.remoteAddress);
    const key = { subject: callerNetwork(peer), project: '' };
    const isProxy = peer !== undefined && this.isProxy?.(peer) === true;
    const isWithinMax = isProxy || this.share.heldBy(key.subject) < this.#ofAddressMax;
    const ofReserve = !(isWithinMax && this.#hasRoom()) && this.#mayUseReserve(peer);
    if (!ofReserve && !(isWithinMax && (this.#hasRoom() || this.#makeRoom()))) {
      this.share.countRefusal(key, 1);
      this.#refuse(socket);
      return false;
    }
    const hold = this.#hold(key, ofReserve);
    const silence = setTimeout(() => this.#cutIfSilent(socket), FIRST_BYTE_MS).unref();
    let owner = STRANGER;
    const mayClose = !isProxy && !ofReserve;
    if (mayClose) this.#own(owner, socket, hold);
    const onPassed = (subject: string): void => {
      if (!mayClose || !this.#disown(owner, socket)) return;
      owner = subject;
      this.#own(owner, socket, hold);
    };
    placeConnection(socket, { network: key.subject, isProxy, ofReserve, onPassed });
    socket.once('close', () => {
      clearTimeout(silence);
      this.#disown(owner, socket);
      hold[Symbol.dispose]();
    });
    return true;
  }

  /**
   * Counts a request from a proxy. On a reserved connection it is refused: a proxy on this machine would fill
   * the reserve with requests of strangers.
   *
   * @throws AppError `rate_limited`, `overloaded`.
   */
  acceptForwarded(request: FastifyRequest, reply: FastifyReply): void {
    const place = placeOf(request.raw.socket);
    const keyOf = () => ({ subject: callerNetwork(request.ip), project: '' });
    if (place?.ofReserve === true && isForwarded(request.headers)) {
      reply.header('connection', 'close');
      throw this.share.refusal(keyOf(), 1);
    }
    if (place?.isProxy !== true) return;
    const key = keyOf();
    const hold = this.forwarded.tryTake(key, 1);
    if (hold === undefined) throw this.forwarded.refusal(key, 1);
    reply.raw.once('close', () => hold[Symbol.dispose]());
  }

  /** Closes all that were refused. */
  closeRefused(): void {
    for (const socket of this.#refused) socket.destroy();
  }

  #hasRoom(): boolean {
    return this.share.held - this.#ofReserve < this.share.capacity - this.#reserve;
  }

  #mayUseReserve(peer: string | undefined): boolean {
    return peer !== undefined && isOwn(peer) && this.#ofReserve < this.#reserve;
  }

  #hold(key: ShareKey, ofReserve: boolean): Disposable {
    const holds = new DisposableStack();
    holds.use(this.share.charge(key, 1));
    if (ofReserve) {
      this.#ofReserve++;
      holds.defer(() => this.#ofReserve--);
    }
    return holds;
  }

  #own(owner: string, socket: PlacedSocket, hold: Disposable): void {
    const owned = this.#byOwner.get(owner);
    if (owned === undefined) this.#byOwner.set(owner, new Map([[socket, hold]]));
    else owned.set(socket, hold);
  }

  /** @returns whether it was there. */
  #disown(owner: string, socket: PlacedSocket): boolean {
    const owned = this.#byOwner.get(owner);
    const wasOwned = owned?.delete(socket) === true;
    if (owned?.size === 0) this.#byOwner.delete(owner);
    return wasOwned;
  }

  /**
   * Closes the oldest connection of which no request was authorized. If there is none, it closes one of the
   * subject with most, if that has more than an equal part: no token keeps all others out.
   */
  #makeRoom(): boolean {
    let owner = STRANGER;
    if (!this.#byOwner.has(STRANGER)) {
      let most = Math.max(1, (this.share.capacity - this.#reserve) / (this.#byOwner.size + 1));
      for (const [subject, { size }] of this.#byOwner) if (size > most) [owner, most] = [subject, size];
    }
    const [oldest] = this.#byOwner.get(owner) ?? [];
    if (oldest === undefined) return false;
    const [socket, hold] = oldest;
    this.#disown(owner, socket);
    // Its place is free now, not once it has closed.
    hold[Symbol.dispose]();
    socket.destroy();
    return true;
  }

  #cutIfSilent(socket: Socket): void {
    if (socket.bytesRead > 0) return;
    this.#cuts++;
    socket.destroy();
  }

  #refuse(socket: Socket): void {
    if (this.#refused.size >= REFUSED_MAX) {
      socket.destroy();
      return;
    }
    this.#refused.add(socket);
    const timer = setTimeout(() => socket.destroy(), REFUSED_MS).unref();
    socket.once('close', () => {
      clearTimeout(timer);
      this.#refused.delete(socket);
    });
  }
}

/** Counts the requests from proxies. Closes what was refused with the server. */
export function limitForwarded(app: FastifyInstance, connections: Connections): void {
  app.addHook('onRequest', (request, reply, done) => {
    try {
      connections.acceptForwarded(request, reply);
    } catch (error) {
      done(error as Error);
      return;
    }
    done();
  });
  app.addHook('preClose', async () => connections.closeRefused());
}

/** Whether a proxy forwards the request for a client. Health checks of proxies have no such header. */
function isForwarded(headers: IncomingHttpHeaders): boolean {
  return headers['x-forwarded-for'] !== undefined || headers.forwarded !== undefined;
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

function isOwn(address: string): boolean {
  return LOOPBACK.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
}
