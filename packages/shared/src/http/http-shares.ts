import type { FastifyInstance } from 'fastify';
import type { ServiceMetrics } from '../metrics/metrics.ts';
import { type Clock, systemClock } from '../runtime/clock.ts';
import { memoryLimit } from '../runtime/memory-limit.ts';
import { Share } from '../shares/share.ts';
import { answerBudgetOf } from './answer-buffer-budget.ts';
import { bodyBudgetOf, SMALL_BYTES_MAX } from './body-buffer-budget.ts';
import { CONNECTIONS_MAX, CONNECTIONS_OF_ADDRESS_MAX, Connections } from './connection-limit.ts';

const MIB = 1_048_576;

/** The resources that all listeners of a process share. */
export interface HttpShares {
  /** Bytes of bodies in memory. */
  readonly bodies: Share;
  /** Bytes of answers that clients have not received. */
  readonly answers: Share;
  readonly connections: Connections;
}

/** Settings of {@link HttpShares}. */
export interface HttpShareSizes {
  readonly bodyBytes: number;
  readonly answerBytes: number;
  readonly connectionsMax: number;
  readonly connectionsOfAddressMax: number;
  readonly isProxy: ((address: string) => boolean) | undefined;
}

/** Part of the capacity that is reserved for requests of at most 64 KiB. */
const RESERVE = 1 / 8;
/**
 * Answers that wait for room are in memory already, so they are limited to this part of the capacity, or to
 * two of the largest: a page of 16 MiB, and what surrounds it.
 */
const WAITING = 1 / 8;
const WAITING_BYTES_MIN = 34 * MIB;

/** A room that is a sixteenth of the memory, from 32 MiB to a maximum. */
export function roomBytes(bytesMax: number, limitBytes = memoryLimit()): number {
  return Math.floor(Math.min(bytesMax, Math.max(32 * MIB, limitBytes / 16)));
}

/**
 * The default room for bodies. In a larger one, more bodies would wait for the processor, and none would be
 * processed sooner.
 */
export function defaultBodyBytes(limitBytes?: number): number {
  return roomBytes(64 * MIB, limitBytes);
}

/** The default room for answers. */
export function defaultAnswerBytes(limitBytes?: number): number {
  return roomBytes(128 * MIB, limitBytes);
}

export function createHttpShares(
  sizes: Partial<HttpShareSizes> = {},
  clock: Clock = systemClock,
): HttpShares {
  const { bodyBytes = defaultBodyBytes(), answerBytes = defaultAnswerBytes() } = sizes;
  const common = { clock, smallMax: SMALL_BYTES_MAX };
  return {
    bodies: new Share({
      ...{ ...common, name: 'request bodies', capacity: bodyBytes, reserve: bodyBytes * RESERVE },
    }),
    answers: new Share({
      ...{ ...common, name: 'answers', capacity: answerBytes, reserve: answerBytes * RESERVE },
      waitingUnitsMax: Math.max(answerBytes * WAITING, WAITING_BYTES_MIN),
    }),
    connections: new Connections({
      clock,
      max: sizes.connectionsMax ?? CONNECTIONS_MAX,
      ofAddressMax: sizes.connectionsOfAddressMax ?? CONNECTIONS_OF_ADDRESS_MAX,
      isProxy: sizes.isProxy,
    }),
  };
}

/** Shows the shares of a server. */
export function watchHttpShares(
  metrics: Pick<ServiceMetrics, 'watchShares' | 'watchCuts'>,
  app: FastifyInstance,
  { bodies, answers, connections }: HttpShares,
): void {
  metrics.watchShares([bodies, answers, connections.share, connections.forwarded]);
  metrics.watchCuts(bodies, () => bodyBudgetOf(app).cuts);
  metrics.watchCuts(answers, () => answerBudgetOf(app).cuts);
}
