import type { Clock } from '../runtime/clock.ts';
import { Accounts } from './account.ts';
import { Pool } from './pool.ts';

/** All places at the gate. */
export const PLACES = 256;
/** Places of a request that holds many documents. */
export const HEAVY = 8;
/** Further places for requests for one document, so that these do not wait for queries of their project. */
const FOR_SINGLE = PLACES / 4;
const WAITING_MAX = 4_096;

const MIB = 1_048_576;
/** Bodies and answers up to this size may use an eighth more bytes than larger ones. */
const SMALL_BYTES_MAX = 65_536;

/** What requests wait for. The subject that has used least is next, there the project that has used least. */
export interface Gate {
  readonly accounts: Accounts;
  /** A request has places from when its body is complete until its answer is ready. */
  readonly places: Pool;
  /**
   * Memory of bodies, of long work, and of answers that clients have not received. Only bodies wait for it.
   */
  readonly bytes: Pool;
}

/** An eighth of the memory, from 64 to 128 MiB. */
export function gateBytes(memoryBytes: number): number {
  return Math.floor(Math.min(128 * MIB, Math.max(64 * MIB, memoryBytes / 8)));
}

/**
 * A lone subject may have all places and all bytes. A subject that comes later may take its equal part beyond
 * the capacity, so it need not wait for requests of others to end. A request gives its places back before it
 * waits for places again, so the gate cannot deadlock.
 */
export function createGate(clock: Clock, bytes: number): Gate {
  const accounts = new Accounts();
  return {
    accounts,
    places: new Pool({
      name: 'places',
      capacity: PLACES,
      waitingMax: WAITING_MAX,
      clock,
      accounts,
      extra: FOR_SINGLE,
      smallMax: 1,
      isOwed: true,
      beyond: { ofSubject: 2, ofProject: 1.5 },
    }),
    bytes: new Pool({
      name: 'bytes',
      capacity: bytes,
      extra: bytes / 8,
      smallMax: SMALL_BYTES_MAX,
      clock,
      accounts,
      beyond: { ofSubject: 1.25, ofProject: 1 },
    }),
  };
}
