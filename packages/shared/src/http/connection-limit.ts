import type { IncomingHttpHeaders } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { type Hold, Pool } from '../admission/pool.ts';
import { memberOf } from '../process/config.ts';
import { callerNetwork, canonicalAddress } from '../runtime/addresses.ts';
import { type Clock, systemClock } from '../runtime/clock.ts';

/** Maximum of connections of a process, and of one address (IPv6: /64). */
const CONNECTIONS_MAX = 4_096;
export const CONNECTIONS_OF_ADDRESS_MAX = 256;
/** Connections beyond both limits for health checks and commands. Only this machine may have them. */
export const OF_THIS_MACHINE = 64;
/**
 * This part of all connections may be without an authorized request before one of them closes for a new one.
 * Otherwise a token with nearly all connections could close each new one by connecting again at once.
 */
const NEWCOMERS_PART = 1 / 16;
/** The owner of connections without an authorized request. */
const STRANGER = '';
/**
 * How long a refused connection stays open and unread, milliseconds, and the maximum of such connections. If
 * it closed at once, clients that connect again at once would keep the event loop busy.
 */
export const REFUSED_MS = 1_000;
export const REFUSED_MAX = 1_024;

const isOfThisMachine = memberOf(['127.0.0.0/8', '::1']);

const CONNECTION = Symbol('connection');

/** An accepted connection. */
interface Connection {
  /** Below TLS. */
  readonly socket: Socket;
  readonly hold: Hold;
  /** Whether the peer is a trusted proxy. */
  readonly isProxy: boolean;
  /** Whether it is beyond a limit. Only connections of this machine may be. */
  readonly isExtra: boolean;
  /** The name for its turns: its address, or its own name when a proxy sends requests of many clients. */
  readonly turn: string;
  /**
   * The subject of its first authorized request, or {@link STRANGER}. Undefined if it must not close to make
   * room.
   */
  owner: string | undefined;
  readonly pass: (subject: string) => void;
}

/** The socket stores the connection, because a map would cost each request a look-up. */
interface AcceptedSocket extends Socket {
  [CONNECTION]?: Connection | undefined;
}

/** Open connections by name. Node does not reveal the connection below a TLS connection. */
const byName = new Map<string, Connection>();

/** A name that is the same for a TLS connection and the connection below it. */
function nameOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}

/** The accepted connection of a socket, or of the socket below a TLS connection. */
export function connectionOf(socket: AcceptedSocket): Connection | undefined {
  socket[CONNECTION] ??= byName.get(nameOf(socket));
  return socket[CONNECTION];
}

/** Records the subject of the first authorized request of a connection. */
export function notePassed(socket: Socket, subject: string): void {
  const connection = connectionOf(socket);
  if (connection?.owner === STRANGER) connection.pass(subject);
}

export interface ConnectionsOptions {
  /** Prefix of the names of its shares, when a process has several instances. */
  readonly prefix?: string;
  readonly clock?: Clock;
  /** {@link CONNECTIONS_MAX} unless a test sets it. */
  readonly max?: number;
  /** {@link CONNECTIONS_OF_ADDRESS_MAX} by default. */
  readonly ofAddressMax?: number | undefined;
  /** Identifies trusted proxies, whose connections are not limited by address. */
  readonly isProxy?: ((address: string) => boolean) | undefined;
}

/**
 * Limits the connections of one or more listeners. The subject of the share is the address, because a
 * connection has no token yet.
 */
export class Connections {
  readonly share: Pool;
  /** Open requests from proxies, by the address of the proxy's client. */
  readonly forwarded: Pool;
  /** Whether a peer is a trusted proxy whose `X-Forwarded-For` counts; undefined without proxies. */
  readonly isProxy: ((address: string) => boolean) | undefined;
  readonly #ofAddressMax: number;
  /** Connections that may close to make room, by owner, the oldest first. */
  readonly #byOwner = new Map<string, Set<Connection>>();
  /** Number of connections beyond a limit that are not closed yet. */
  #refused = 0;

  constructor(options: ConnectionsOptions) {
    const { prefix = '', clock = systemClock, max = CONNECTIONS_MAX, isProxy } = options;
    const { ofAddressMax = CONNECTIONS_OF_ADDRESS_MAX } = options;
    const common = { capacity: max, subjectMax: ofAddressMax, waitMs: 0, clock };
    this.share = new Pool({ ...common, name: `${prefix}connections` });
    this.forwarded = new Pool({ ...common, name: `${prefix}requests through proxies` });
    this.#ofAddressMax = ofAddressMax;
    this.isProxy = isProxy;
  }

  /**
   * Counts a connection until it closes.
   *
   * @returns false when it exceeds a limit. It closes soon, and the caller must not read it.
   */
  accept(socket: AcceptedSocket): boolean {
    const peer = canonicalAddress(socket.remoteAddress);
    const key = { subject: callerNetwork(peer), project: '' };
    const isProxy = peer !== undefined && this.isProxy?.(peer) === true;
    const extra = peer !== undefined && isOfThisMachine(peer) ? OF_THIS_MACHINE : 0;
    const { held, capacity } = this.share;
    const ofAddress = isProxy ? 0 : this.share.heldBy(key.subject);
    const isWithinMax = ofAddress < this.#ofAddressMax + extra;
    // Such a connection must not close for others, because a health check uses it.
    const isExtra = held < capacity + extra && (held >= capacity || ofAddress >= this.#ofAddressMax);
    if (!isWithinMax || (held >= capacity + extra && !this.#makeRoom())) {
      // The metrics count it.
      this.share.refusal(key, 1);
      this.#refuse(socket);
      return false;
    }
    const name = nameOf(socket);
    const connection: Connection = {
      socket,
      hold: this.share.charge(key, 1),
      isProxy,
      isExtra,
      owner: undefined,
      turn: isProxy ? name : key.subject,
      pass: (subject) => this.#setOwner(connection, subject),
    };
    socket[CONNECTION] = connection;
    byName.set(name, connection);
    if (!isProxy && !isExtra) this.#setOwner(connection, STRANGER);
    socket.once('close', () => {
      if (byName.get(name) === connection) byName.delete(name);
      this.#setOwner(connection, undefined);
      connection.hold[Symbol.dispose]();
    });
    return true;
  }

  #setOwner(connection: Connection, owner: string | undefined): void {
    const { owner: before = '' } = connection;
    const owned = this.#byOwner.get(before);
    owned?.delete(connection);
    if (owned?.size === 0) this.#byOwner.delete(before);
    connection.owner = owner;
    if (owner === undefined) return;
    const others = this.#byOwner.get(owner);
    if (others === undefined) this.#byOwner.set(owner, new Set([connection]));
    else others.add(connection);
  }

  /**
   * Closes the oldest connection without an authorized request. If there are few of these, it closes one of
   * the subject with most, if this has more than an equal part. So no token can keep all others out.
   */
  #makeRoom(): boolean {
    let owner = STRANGER;
    const strangers = this.#byOwner.get(STRANGER)?.size ?? 0;
    if (strangers <= this.share.capacity * NEWCOMERS_PART) {
      const subjects = this.#byOwner.size - Number(strangers > 0);
      let most = Math.max(1, this.share.capacity / (subjects + 1));
      for (const [subject, { size }] of this.#byOwner)
        if (subject !== STRANGER && size > most) [owner, most] = [subject, size];
    }
    const [oldest] = this.#byOwner.get(owner) ?? [];
    if (oldest === undefined) return false;
    this.#setOwner(oldest, undefined);
    // Its place is free at once, before it has closed.
    oldest.hold[Symbol.dispose]();
    oldest.socket.destroy();
    return true;
  }

  #refuse(socket: Socket): void {
    if (this.#refused >= REFUSED_MAX) {
      socket.destroy();
      return;
    }
    this.#refused++;
    const timer = setTimeout(() => socket.destroy(), REFUSED_MS).unref();
    socket.once('close', () => {
      clearTimeout(timer);
      this.#refused--;
    });
  }
}

/**
 * Counts the requests from proxies, and refuses those beyond a limit. Connections beyond the limits are for
 * health checks, so it refuses requests that a proxy on this machine forwards there.
 */
export function limitForwarded(app: FastifyInstance, { forwarded, share }: Connections): void {
  app.addHook('onRequest', (request, reply, done) => {
    const connection = connectionOf(request.raw.socket);
    const key = { subject: callerNetwork(request.ip), project: '' };
    if (connection?.isExtra === true && isForwarded(request.headers)) {
      reply.header('connection', 'close');
      done(share.refusal(key, 1));
      return;
    }
    if (connection?.isProxy !== true) {
      done();
      return;
    }
    const hold = forwarded.tryTake(key, 1);
    reply.raw.once('close', () => hold?.[Symbol.dispose]());
    if (hold === undefined) done(forwarded.refusal(key, 1));
    else done();
  });
}

/** Whether a proxy forwards the request for a client. Health checks of proxies have no such header. */
function isForwarded(headers: IncomingHttpHeaders): boolean {
  return headers['x-forwarded-for'] !== undefined || headers.forwarded !== undefined;
}
