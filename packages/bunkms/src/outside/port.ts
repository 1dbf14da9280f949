import { formatCauses } from '@bundoc/shared/logs/error-line';

/** Bytes that an outside key wraps: a share of 32 bytes, or a key with its check value. */
export const SECRET_BYTES = { min: 32, max: 64 } as const;
/** The longest wrapped secret, bytes: that of an RSA key of 3,072 bits. */
export const BLOB_BYTES_MAX = 384;
/** How long a call may take, milliseconds, with its wait for others. A caller of BunKMS waits for it. */
export const CALL_MS = 1_500;

/**
 * Why a call failed.
 *
 * - `denied`: the holder of the key refuses its use, and our own credential works. A holder takes a key back
 * so.
 * - `unavailable`: no answer, or none that says whether the key may be used. Another time it may work.
 * - `damaged`: the key works and does not open these bytes.
 */
export type OutsideFault = 'denied' | 'unavailable' | 'damaged';

/** What one call leaves for its record. */
export interface CallFacts {
  /** How long it took with its wait, milliseconds. */
  ms?: number;
  /** By which the provider's own log names the call; printable ASCII. */
  requestId?: string | undefined;
}

export interface OutsideKeyErrorOptions extends ErrorOptions {
  /** What an operator can do, as in "put a token that works into token_file". */
  readonly remedy?: string | undefined;
}

/**
 * A call of an outside key that failed. Its message holds no secret, and at most 200 characters of an answer.
 */
export class OutsideKeyError extends Error {
  override readonly name = 'OutsideKeyError';
  readonly fault: OutsideFault;
  readonly remedy: string | undefined;
  /** After which time another call may succeed, seconds. Undefined until the call has ended. */
  retryAfterS: number | undefined;
  /** Of the call that failed. */
  facts: CallFacts = {};

  constructor(fault: OutsideFault, message: string, { remedy, ...options }: OutsideKeyErrorOptions = {}) {
    super(message, options);
    this.fault = fault;
    this.remedy = remedy;
  }
}

const REQUEST_ID = /^[\x20-\x7e]{1,128}$/;

/** The id that a provider gave a call, if it is one that a record can hold. */
export function requestIdOf(given: unknown): string | undefined {
  return typeof given === 'string' && REQUEST_ID.test(given) ? given : undefined;
}

/** Cause and remedy of a call that failed, as one line. */
export function describeOutsideError(error: unknown): string {
  const remedy = error instanceof OutsideKeyError ? error.remedy : undefined;
  return remedy === undefined ? formatCauses(error) : `${formatCauses(error)}; ${remedy}`;
}

/**
 * One key of another service or device, as its provider offers it. Calls may overlap. Each ends soon after
 * its signal, and is not repeated.
 */
export interface OutsideProvider extends AsyncDisposable {
  /** What names the key at the provider, whatever the operator calls it. */
  readonly realName: string;
  /** @returns the wrapped secret. @throws OutsideKeyError. */
  wrap(secret: Uint8Array, signal: AbortSignal): Promise<Buffer>;
  /**
   * @param facts gets the provider's id of the call, also if it fails.
   * @returns the secret, which the caller wipes. @throws OutsideKeyError.
   */
  unwrap(blob: Uint8Array, signal: AbortSignal, facts?: CallFacts): Promise<Buffer>;
  /**
   * Resolves once a call need not wait for the start of a process, or that start has failed. Absent when
   * there is none.
   */
  prepare?(): Promise<void>;
  /** Resolves when our own credential works. @throws OutsideKeyError `unavailable`. */
  checkCredential(signal: AbortSignal): Promise<void>;
}

/** A key outside of BunKMS: of a customer, an HSM, a cloud or another key service. */
export interface OutsideKey {
  /** As the operator calls it. */
  readonly name: string;
  readonly kind: string;
  /** SHA-256 of kind and real name, in hex: the same name for another key is noticed. */
  readonly identity: string;
  /**
   * Wraps a secret of 32 to 64 bytes. @returns at most {@link BLOB_BYTES_MAX} bytes. @throws OutsideKeyError
   * within {@link CALL_MS}.
   */
  wrap(secret: Uint8Array): Promise<Buffer>;
  /**
   * @param facts gets those of the call.
   * @returns the secret, which the caller wipes. @throws OutsideKeyError within {@link CALL_MS}, with `facts`
   *   and `retryAfterS`.
   */
  unwrap(blob: Uint8Array, facts?: CallFacts): Promise<Buffer>;
  /** Wraps and unwraps a random secret. @throws OutsideKeyError within twice {@link CALL_MS}. */
  check(): Promise<void>;
}

/** The outside keys that keys may be attached to. */
export interface OutsideKeyPort {
  /** Undefined when no entry has the name. */
  find(name: string): Promise<OutsideKey | undefined>;
  /** Whether an entry lets the key of that name be attached to it. */
  allows(name: string, keyName: string): boolean;
  /** The outside key that a new key of that name is attached to from its birth. */
  ofBirth(keyName: string): string | undefined;
  /** Opens an entry another time, to check what its provider has wrapped. The caller closes it. */
  openFresh(name: string): Promise<(OutsideKey & AsyncDisposable) | undefined>;
}

/** The port of an installation without outside keys. */
export const NO_OUTSIDE_KEYS: OutsideKeyPort = {
  find: async () => undefined,
  allows: () => false,
  ofBirth: () => undefined,
  openFresh: async () => undefined,
};
