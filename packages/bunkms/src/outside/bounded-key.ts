import assert from 'node:assert/strict';
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { Pool } from '@bundoc/shared/admission/pool';
import { AppError } from '@bundoc/shared/contract/app-error';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import {
  BLOB_BYTES_MAX,
  CALL_MS,
  type CallFacts,
  type OutsideFault,
  type OutsideKey,
  OutsideKeyError,
  type OutsideProvider,
  SECRET_BYTES,
} from './port.ts';

/** Calls of one key at the same time, and those that wait for them. Others are refused at once. */
const CALLS_MAX = 8;
const WAITING_MAX = 64;
/**
 * A provider hangs when a call ran for so long, and none was answered meanwhile. Others may have had too
 * little time left.
 */
const HANGS_AFTER_MS = CALL_MS / 2;
/** When another call may succeed, seconds: as long as calls have failed, within these bounds. */
const RETRY_AFTER_S = { min: 1, max: 15 };
/** All calls of one key have one account. */
const OF_KEY = { subject: '', project: '' };

export const CALL_OUTCOMES = ['ok', 'denied', 'unavailable', 'damaged'] as const satisfies (
  | 'ok'
  | OutsideFault
)[];
export type CallOutcome = (typeof CALL_OUTCOMES)[number];

export interface BoundedKeyOptions {
  readonly clock?: Clock;
  /** Called at the end of each call, with its time in milliseconds. */
  readonly onCall?: ((outcome: CallOutcome, ms: number) => void) | undefined;
}

/**
 * Bounds the calls of one key in number and time, so that a slow key delays no other. While its provider
 * hangs, one call at a time tries it, and others are refused at once. It holds its provider to the sizes of
 * the port, and believes a refusal only while our own credential works.
 */
export class BoundedKey implements OutsideKey, AsyncDisposable {
  readonly name: string;
  readonly kind: string;
  readonly identity: string;
  readonly #provider: OutsideProvider;
  readonly #calls: Pool;
  readonly #clock: Clock;
  readonly #onCall: BoundedKeyOptions['onCall'];
  /** Since when no call has had an answer. */
  #awaySinceMs: number | undefined;
  #hangs = false;
  #answeredAtMs = Number.NEGATIVE_INFINITY;
  /** Whether a call tries a provider that hangs. */
  #isTried = false;

  constructor(
    name: string,
    kind: string,
    provider: OutsideProvider,
    { clock = systemClock, onCall }: BoundedKeyOptions = {},
  ) {
    this.name = name;
    this.kind = kind;
    this.identity = createHash('sha256').update(`${kind}\0${provider.realName}`).digest('hex');
    this.#provider = provider;
    this.#clock = clock;
    this.#onCall = onCall;
    const sizes = { capacity: CALLS_MAX, waitingMax: WAITING_MAX, waitMs: CALL_MS };
    this.#calls = new Pool({ name: 'calls of an outside key', ...sizes, clock });
  }

  /**
   * Waits until the provider can be called: a command has no time to try again. The start of a token's
   * process ends within 30 s. Never throws.
   */
  async prepare(): Promise<void> {
    await this.#provider.prepare?.();
  }

  async wrap(secret: Uint8Array): Promise<Buffer> {
    assert(isSecret(secret), 'an outside key wraps 32 to 64 bytes');
    return await this.#call(async (signal) => {
      const blob = await this.#provider.wrap(secret, signal);
      if (blob.indexOf(secret) !== -1)
        throw new OutsideKeyError('unavailable', 'it answered with the secret itself, not wrapped');
      if (blob.length > 0 && blob.length <= BLOB_BYTES_MAX) return blob;
      const most = `at most ${BLOB_BYTES_MAX} are stored`;
      throw new OutsideKeyError('unavailable', `the wrapped secret has ${blob.length} bytes; ${most}`);
    });
  }

  async unwrap(blob: Uint8Array, facts: CallFacts = {}): Promise<Buffer> {
    return await this.#call(async (signal) => {
      const secret = await this.#provider.unwrap(blob, signal, facts);
      if (isSecret(secret)) return secret;
      secret.fill(0);
      throw new OutsideKeyError('damaged', 'what it unwraps is no secret of BunKMS');
    }, facts);
  }

  async check(): Promise<void> {
    const secret = randomBytes(SECRET_BYTES.min);
    const unwrapped = await this.unwrap(await this.wrap(secret));
    const isSame = unwrapped.length === secret.length && timingSafeEqual(unwrapped, secret);
    unwrapped.fill(0);
    if (!isSame) throw new OutsideKeyError('damaged', 'it unwraps other bytes than it has wrapped');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#provider[Symbol.asyncDispose]();
  }

  /** Runs one call, and notes how it ended. */
  async #call(call: (signal: AbortSignal) => Promise<Buffer>, facts: CallFacts = {}): Promise<Buffer> {
    const begunMs = this.#clock.monotonic();
    let outcome: CallOutcome = 'unavailable';
    try {
      const result = await this.#inTime(call);
      outcome = 'ok';
      return result;
    } catch (error) {
      const failure = error as OutsideKeyError;
      outcome = failure.fault;
      failure.facts = facts;
      failure.retryAfterS = this.#retryAfterS(outcome);
      throw failure;
    } finally {
      if (outcome !== 'unavailable') this.#answered();
      facts.ms = Math.round(this.#clock.monotonic() - begunMs);
      this.#onCall?.(outcome, facts.ms);
    }
  }

  /** It is asked less often the longer it is away. */
  #retryAfterS(outcome: CallOutcome): number {
    if (outcome !== 'unavailable') return RETRY_AFTER_S.min;
    const nowMs = this.#clock.monotonic();
    this.#awaySinceMs ??= nowMs;
    const awayS = (nowMs - this.#awaySinceMs) / 1_000;
    return Math.min(RETRY_AFTER_S.max, Math.max(RETRY_AFTER_S.min, Math.ceil(awayS)));
  }

  #answered(): void {
    this.#awaySinceMs = undefined;
    this.#hangs = false;
    this.#answeredAtMs = performance.now();
  }

  /** Runs a call, unless the provider hangs and another one tries it. @throws OutsideKeyError. */
  async #inTime(call: (signal: AbortSignal) => Promise<Buffer>): Promise<Buffer> {
    if (!this.#hangs) return await this.#untilDeadline(call, { isTry: false });
    if (this.#isTried) throw triedByAnother();
    this.#isTried = true;
    try {
      return await this.#untilDeadline(call, { isTry: true });
    } finally {
      this.#isTried = false;
    }
  }

  /** The deadline covers the wait. A result that comes later is wiped. @throws OutsideKeyError. */
  async #untilDeadline(
    call: (signal: AbortSignal) => Promise<Buffer>,
    { isTry }: { isTry: boolean },
  ): Promise<Buffer> {
    const signal = AbortSignal.timeout(CALL_MS);
    const { promise: late, reject } = Promise.withResolvers<never>();
    const giveUp = () => reject(signal.reason);
    signal.addEventListener('abort', giveUp, { once: true });
    let begunMs: number | undefined;
    const work = this.#run(signal, () => {
      // It began to hang while this call waited.
      if (this.#hangs && !isTry) throw triedByAnother();
      begunMs = performance.now();
      return call(signal);
    });
    try {
      return await Promise.race([work, late]);
    } catch (error) {
      if (begunMs !== undefined) {
        // One that fails at once holds nothing up.
        if (!signal.aborted) this.#hangs = false;
        else if (performance.now() - Math.max(begunMs, this.#answeredAtMs) >= HANGS_AFTER_MS)
          this.#hangs = true;
      }
      if (error instanceof OutsideKeyError) throw error;
      work.then((result) => result.fill(0)).catch(() => undefined);
      if (error instanceof AppError)
        throw new OutsideKeyError('unavailable', 'too many calls wait for it', { cause: error });
      if (!signal.aborted) throw new OutsideKeyError('unavailable', 'the call failed', { cause: error });
      throw new OutsideKeyError('unavailable', `no answer within ${CALL_MS / 1_000} s`, {
        remedy: 'see what delays it: the network, a firewall, or the holder of the key',
      });
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
  }

  async #run(signal: AbortSignal, call: () => Promise<Buffer>): Promise<Buffer> {
    using _place = await this.#calls.take(OF_KEY, 1, signal);
    try {
      return await call();
    } catch (error) {
      // Many services refuse an expired credential of ours as they refuse the use of a key.
      if (error instanceof OutsideKeyError && error.fault === 'denied')
        await this.#provider.checkCredential(signal);
      throw error;
    }
  }
}

function triedByAnother(): OutsideKeyError {
  return new OutsideKeyError('unavailable', 'it does not answer, and another call tries it');
}

function isSecret({ length }: Uint8Array): boolean {
  return length >= SECRET_BYTES.min && length <= SECRET_BYTES.max;
}
