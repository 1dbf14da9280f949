import type { IncomingHttpHeaders, Server } from 'node:http';
import { BlockList, isIPv6, type Socket } from 'node:net';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { callerNetwork, canonicalAddress } from '../runtime/addresses.ts';
import type { Clock } from '../runtime/clock.ts';
import { descriptorLimit } from '../runtime/descriptor-limit.ts';
import type { Hold } from '../shares/hold.ts';
import { Share } from '../shares/share.ts';
import type { ShareKey } from '../shares/share-key.ts';
import type { LoopTurns } from './loop-turns.ts';
import { sweepUntilClosed } from './sweeps.ts';

/** Maximum connections of a process, and of one address (IPv6: /64). */
export const CONNECTIONS_MAX = 4_096;
export const CONNECTIONS_OF_ADDRESS_MAX = 256;
/**
 * The last connections, which only this machine may use, beyond the limit per address. They are for health
 * checks and commands. A proxy on this machine cannot use them for its clients.
 */
const RESERVE = 64;
/**
 * An address gets a connection of another one that has at least so many more, or clearly more than twice as
 * many. Otherwise addresses would take them from each other in turn.
 */
const CLEARLY_MORE = 8;
const MORE_THAN_TWICE = 3;
/** How long a connection may be silent before its first byte. */
export const FIRST_BYTE_MS = 5_000;
const SWEEP_EVERY_MS = 50;
/**
 * How long a refused connection stays open, unread. Otherwise a client that connects again at once would keep
 * the event loop busy with refusals.
 */
export const REFUSED_MS = 1_000;
/** Refused connections that are closed in one sweep. Their clients connect again together. */
export const REFUSED_OF_SWEEP = 100;
/**
 * The same of those that were refused in the last seconds, while others wait to be accepted. Otherwise these
 * would wait behind the clients that connect again.
 */
export const REFUSED_OF_CROWDED_SWEEP = 5;
export const REFUSED_IN_CROWD_MS = 5_000;
/** The part of the refused connections that may stay open for so long. */
const REFUSED_CROWDED = 3 / 4;
/** Refused connections that may stay open for each other connection. */
const REFUSED_FOR_EACH = 2;
/** The part of the refused connections that one address may have. */
const REFUSED_OF_ADDRESS = 1 / 4;
/** Descriptors that are not for connections. */
const OTHER_DESCRIPTORS = 1_024;

const TURN = Symbol('name by which a connection takes turns');

interface TurnedSocket extends Socket {
  [TURN]?: string;
}

export interface ConnectionsOptions {
  /** Prefix of the names of its shares, when a process has several instances. */
  readonly prefix?: string;
  readonly clock: Clock;
  readonly max: number;
  readonly ofAddressMax: number;
  /** Identifies trusted proxies, whose connections are not limited by address. */
  readonly isProxy?: ((address: string) => boolean) | undefined;
  /** Descriptors that it may use; those of the process by default. */
  readonly descriptorsMax?: number;
}

/**
 * Limits the connections of one or more listeners. The subject of the share is the address, because no token
 * is known yet.
 *
 * One class, because the place of a connection, its address and its silence end together.
 */
export class Connections {
  readonly share: Share;
  /** Open requests from proxies, by the address of the proxy's client. */
  readonly forwarded: Share;
  readonly #clock: Clock;
  readonly #reserve: number;
  /** Names of the connections in the reserve. */
  readonly #ofReserve = new Set<string>();
  /** Whether a peer is a trusted proxy, so that its `X-Forwarded-For` counts; undefined without proxies. */
  readonly isProxy: ((address: string) => boolean) | undefined;
  /** What each address has beside the reserve, but for proxies; the latest last. */
  readonly #ofAddress = new Map<string, Map<Socket, Disposable>>();
  /** Connections that have sent nothing, the oldest first, with their start times. */
  readonly #silent = new Map<Socket, number>();
  /** Connections beyond a limit that are not closed yet. */
  readonly refused: Share;
  /** These, the oldest first. */
  readonly #refused = new Map<Socket, Refused>();
  #cuts = 0;

  constructor({ prefix = '', clock, max, ofAddressMax, isProxy, descriptorsMax }: ConnectionsOptions) {
    this.share = new Share({
      ...{ name: `${prefix}connections`, capacity: max, subjectMax: ofAddressMax, waitMs: 0, clock },
    });
    this.forwarded = new Share({
      ...{
        name: `${prefix}requests through proxies`,
        capacity: max,
        subjectMax: ofAddressMax,
        waitMs: 0,
        clock,
      },
    });
    const refusedMax = refusedConnectionsMax(max, descriptorsMax ?? descriptorLimit());
    this.refused = new Share({
      name: `${prefix}refused connections`,
      capacity: refusedMax,
      subjectMax: refusedMax * REFUSED_OF_ADDRESS,
      waitMs: 0,
      clock,
    });
    this.#clock = clock;
    this.#reserve = Math.min(RESERVE, Math.floor(max / 8));
    this.isProxy = isProxy;
  }

  /** Connections that were closed because they sent nothing. */
  get cuts(): number {
    return this.#cuts;
  }

  /**
   * Counts a connection until it closes. Its silence is timed once it has begun.
   *
   * @returns false when it exceeds a limit: it is closed soon, and must not be read.
   */
  accept(socket: Socket): boolean {
    const peer = canonicalAddress(socket.remoteAddress);
    const key = { subject: callerNetwork(peer), project: '' };
    let hold = this.#hold(socket, peer, key);
    if (hold === undefined && this.#makeRoom(key)) hold = this.#hold(socket, peer, key);
    if (hold === undefined) {
      this.share.countRefusal(key, 1);
      this.#refuse(socket, key);
      return false;
    }
    const close = () => {
      hold[Symbol.dispose]();
      this.#silent.delete(socket);
    };
    if (this.#isProxyAt(peer) || this.#ofReserve.has(nameOf(socket))) socket.once('close', close);
    else {
      const sockets = this.#ofAddress.get(key.subject) ?? new Map<Socket, Disposable>();
      this.#ofAddress.set(key.subject, sockets.set(socket, hold));
      socket.once('close', () => {
        close();
        this.#forget(socket, key);
      });
    }
    return true;
  }

  /**
   * The name by which a connection and its requests take turns with others: that of its address. Connections
   * of a trusted proxy are of many clients, so each has a name of its own.
   */
  turnOf(socket: TurnedSocket): string {
    socket[TURN] ??= this.#turnOf(socket);
    return socket[TURN];
  }

  #turnOf(socket: Socket): string {
    const peer = canonicalAddress(socket.remoteAddress);
    return this.#isProxyAt(peer) ? nameOf(socket) : callerNetwork(peer);
  }

  /** Times the silence of a connection that is read from now on. */
  begin(socket: Socket): void {
    this.#silent.set(socket, this.#clock.monotonic());
  }

  /** Closes it after a while, if it may stay open for so long. */
  #refuse(socket: Socket, key: ShareKey): void {
    // A share without capacity would still give one unit.
    const hold = this.refused.capacity > 0 ? this.refused.tryTake(key, 1) : undefined;
    if (hold === undefined) {
      socket.destroy();
      return;
    }
    this.#refused.set(socket, { sinceMs: this.#clock.monotonic(), hold });
    socket.once('close', () => this.#end(socket));
  }

  #end(socket: Socket): void {
    this.#refused.get(socket)?.hold[Symbol.dispose]();
    this.#refused.delete(socket);
  }

  #isProxyAt(peer: string | undefined): boolean {
    return peer !== undefined && this.isProxy?.(peer) === true;
  }

  #forget(socket: Socket, { subject }: ShareKey): void {
    const sockets = this.#ofAddress.get(subject);
    sockets?.delete(socket);
    if (sockets?.size === 0) this.#ofAddress.delete(subject);
  }

  /**
   * Closes the latest connection of the address with most, when all are in use and another address has less
   * than a fair share: many addresses together keep no other one out.
   */
  #makeRoom(key: ShareKey): boolean {
    const { held, capacity } = this.share;
    if (held - this.#ofReserve.size < capacity - this.#reserve) return false;
    const own = this.#ofAddress.get(key.subject)?.size ?? 0;
    const fairShare = capacity / (this.#ofAddress.size + (own === 0 ? 1 : 0));
    if (own + 1 > fairShare) return false;
    let most: readonly [subject: string, sockets: Map<Socket, Disposable>] | undefined;
    for (const one of this.#ofAddress) if (one[1].size > (most?.[1].size ?? 0)) most = one;
    const latest = most?.[1].entries().toArray().at(-1);
    if (
      most === undefined ||
      latest === undefined ||
      most[1].size < own + Math.min(CLEARLY_MORE, own + MORE_THAN_TWICE)
    )
      return false;
    const [socket, hold] = latest;
    this.#forget(socket, { subject: most[0], project: '' });
    // Its place is free now, not once it has closed.
    hold[Symbol.dispose]();
    socket.destroy();
    return true;
  }

  /**
   * Counts a request from a proxy. On a reserved connection it is refused: a proxy on this machine would fill
   * the reserve with requests of strangers.
   *
   * @throws AppError `rate_limited`, `overloaded`.
   */
  acceptForwarded(request: FastifyRequest, reply: FastifyReply): void {
    const { raw, headers } = request;
    const keyOf = () => ({ subject: callerNetwork(request.ip), project: '' });
    if (this.#ofReserve.size > 0 && isForwarded(headers) && this.#ofReserve.has(nameOf(raw.socket))) {
      reply.header('connection', 'close');
      throw this.share.refusal(keyOf(), 1);
    }
    if (this.isProxy === undefined) return;
    if (!this.#isProxyAt(canonicalAddress(raw.socket.remoteAddress))) return;
    const key = keyOf();
    const hold = this.forwarded.tryTake(key, 1);
    if (hold === undefined) throw this.forwarded.refusal(key, 1);
    reply.raw.once('close', () => hold[Symbol.dispose]());
  }

  #hold(socket: Socket, peer: string | undefined, key: ShareKey): Disposable | undefined {
    const { share } = this;
    if (share.held - this.#ofReserve.size < share.capacity - this.#reserve) {
      const hold = this.#isProxyAt(peer) ? share.charge(key, 1) : share.tryTake(key, 1);
      if (hold !== undefined) return hold;
    }
    const mayUseReserve = peer !== undefined && isOwn(peer) && this.#ofReserve.size < this.#reserve;
    return mayUseReserve ? this.#holdOfReserve(socket, key) : undefined;
  }

  #holdOfReserve(socket: Socket, key: ShareKey): Disposable {
    const holds = new DisposableStack();
    holds.use(this.share.charge(key, 1));
    const name = nameOf(socket);
    this.#ofReserve.add(name);
    holds.defer(() => this.#ofReserve.delete(name));
    return holds;
  }

  /**
   * Closes connections that were refused a while ago, and those that have been silent for too long. Call it
   * several times a second.
   *
   * @param isCrowded whether many connections wait to be accepted.
   */
  sweep(isCrowded = false): void {
    const nowMs = this.#clock.monotonic();
    // Without room, further connections would close at once, and their clients would connect again at once.
    const hasRoom = this.refused.held <= this.refused.capacity * REFUSED_CROWDED;
    let closed = 0;
    for (const [socket, { sinceMs }] of this.#refused.entries().take(REFUSED_OF_SWEEP)) {
      const mayStay = isCrowded && hasRoom && closed >= REFUSED_OF_CROWDED_SWEEP;
      if (sinceMs > nowMs - (mayStay ? REFUSED_IN_CROWD_MS : REFUSED_MS)) break;
      socket.destroy();
      this.#end(socket);
      closed++;
    }
    for (const [socket, sinceMs] of this.#silent) {
      if (sinceMs > nowMs - FIRST_BYTE_MS) return;
      this.#silent.delete(socket);
      if (socket.bytesRead > 0) continue;
      this.#cuts++;
      socket.destroy();
    }
  }

  /** Closes all that were refused. */
  closeRefused(): void {
    for (const socket of this.#refused.keys()) {
      socket.destroy();
      this.#end(socket);
    }
  }
}

interface Refused {
  readonly sinceMs: number;
  readonly hold: Hold;
}

/** How many refused connections may stay open: with up to half of the descriptors that others leave. */
function refusedConnectionsMax(connectionsMax: number, descriptorsMax: number): number {
  const left = descriptorsMax - connectionsMax - OTHER_DESCRIPTORS;
  return Math.max(0, Math.min(REFUSED_FOR_EACH * connectionsMax, Math.floor(left / 2)));
}

/**
 * Counts the connections of a server before any other processing, TLS included, and lets them begin in turn.
 * Counts the requests from proxies.
 */
export function limitConnections(app: FastifyInstance, connections: Connections, turns: LoopTurns): void {
  const server = app.server as Server & { pauseOnConnect: boolean };
  const listeners = server.listeners('connection');
  const begin = (socket: Socket): void => {
    // To make room for another one.
    if (socket.destroyed) return;
    connections.begin(socket);
    // The option is for the sockets that Node makes from now on; TLS would keep its own paused too.
    server.pauseOnConnect = false;
    try {
      for (const listener of listeners) listener.call(server, socket);
    } finally {
      server.pauseOnConnect = true;
    }
    socket.resume();
  };
  server.removeAllListeners('connection');
  // Nothing is read from a connection before it begins.
  server.pauseOnConnect = true;
  server.on('connection', (socket: Socket) => {
    turns.accepted();
    if (!connections.accept(socket)) return;
    if (turns.mayBegin()) {
      begin(socket);
      return;
    }
    const name = connections.turnOf(socket);
    const beginNow = () => begin(socket);
    socket.once('close', () => turns.remove(name, beginNow));
    // Its requests would only wait behind those that wait already, and take memory.
    turns.begin(name, beginNow, true);
  });
  app.addHook('onRequest', (request, reply, done) => {
    try {
      connections.acceptForwarded(request, reply);
    } catch (error) {
      done(error as Error);
      return;
    }
    done();
  });
  sweepUntilClosed(app, SWEEP_EVERY_MS, () => connections.sweep(turns.isCrowded));
  app.addHook('preClose', async () => connections.closeRefused());
}

/** A name that is equal for a TLS connection and its underlying connection. */
function nameOf({ remoteAddress, remotePort, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localPort}`;
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
