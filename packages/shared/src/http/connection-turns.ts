import { RoundRobin } from '../runtime/round-robin.ts';

/**
 * How long turns of the event loop in a row only accept connections, milliseconds. Node accepts one a turn.
 */
const ACCEPTING_MS = 10;
/** How long connections begin after that, while still others are accepted. */
const BEGINNING_MS = 5;
/** Connections that begin in one turn. Each may bring a request, which takes some 0.3 ms. */
const OF_TURN = 4;

export interface ConnectionTurnsDeps<C> {
  /** Serves a connection from now on. */
  readonly begin: (connection: C) => void;
  /** Monotonic. */
  readonly nowMs: () => number;
  /** Calls back in this turn of the event loop, after connections were accepted and data was read. */
  readonly endOfTurn: (run: () => void) => void;
}

/**
 * Lets accepted connections begin in turn: addresses take turns, so a connection does not wait for all that
 * another address opened before it. While many are accepted, none of them is read: accepting one takes a
 * fraction of its first request, and the system gives out connections in the order of their arrival.
 *
 * A connection begins at once while no others arrive.
 */
export class ConnectionTurns<C> {
  readonly #ports: ConnectionTurnsDeps<C>;
  /** By address. */
  readonly #waiting = new RoundRobin<C>();
  /** Whether a connection arrived in this turn, and in the one before. */
  #hasAccepted = false;
  #isRun = false;
  /** When the present run of turns began to only accept connections. */
  #sinceMs = 0;
  #isTurnComing = false;

  constructor(ports: ConnectionTurnsDeps<C>) {
    this.#ports = ports;
  }

  /** Number of connections that wait to begin. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Begins a connection that was just accepted, now or in its turn. */
  add(address: string, connection: C): void {
    this.#hasAccepted = true;
    this.#awaitTurn();
    if (!this.#isRun && this.#waiting.size === 0) this.#ports.begin(connection);
    else this.#waiting.add(address, connection);
  }

  /** Forgets a connection that has closed before it began. */
  remove(address: string, connection: C): void {
    this.#waiting.remove(address, connection);
  }

  #awaitTurn(): void {
    if (this.#isTurnComing) return;
    this.#isTurnComing = true;
    this.#ports.endOfTurn(() => {
      this.#isTurnComing = false;
      this.#endTurn();
    });
  }

  #endTurn(): void {
    const nowMs = this.#ports.nowMs();
    if (!this.#isRun) this.#sinceMs = nowMs;
    this.#isRun = this.#hasAccepted;
    this.#hasAccepted = false;
    if (this.#isRun || this.#waiting.size > 0) this.#awaitTurn();
    const tookMs = nowMs - this.#sinceMs;
    if (tookMs >= ACCEPTING_MS + BEGINNING_MS) this.#sinceMs = nowMs;
    if (!this.#isRun || tookMs >= ACCEPTING_MS) this.#beginNext();
  }

  #beginNext(): void {
    for (let count = 0; count < OF_TURN; count++) {
      const connection = this.#waiting.next();
      if (connection === undefined) return;
      this.#ports.begin(connection);
    }
  }
}
