import assert from 'node:assert';
import type { DatedAnswer } from '../runtime/clock-skew.ts';

/**
 * - `denied`: the target refuses the credential or the operation, or there is no credential.
 * - `missing`: there is no such folder or bucket. The service makes neither.
 * - `unavailable`: no usable answer after all attempts. The only kind for which a later attempt may help.
 * - `clock`: the target refuses the time of this machine.
 * - `conflict`: the key has other bytes already, which are kept.
 * - `too-large`: the object has more bytes than the caller accepts.
 * - `wrong`: the setting is wrong, or the target does something that no such target may do.
 */
export type ObjectStorageFault =
  | 'denied'
  | 'missing'
  | 'unavailable'
  | 'clock'
  | 'conflict'
  | 'too-large'
  | 'wrong';

/** Why an operation failed. Neither the message nor anything else of it has a credential or object bytes. */
export class ObjectStorageError extends Error {
  override readonly name = 'ObjectStorageError';
  readonly kind: ObjectStorageFault;
  /** The error code of S3 or of the system, if there is one. */
  readonly code: string | undefined;

  /** @param message names the target, says what is wrong, and what to do. */
  constructor(kind: ObjectStorageFault, message: string, code?: string) {
    super(message);
    this.kind = kind;
    this.code = code;
  }
}

/** A part of an object. */
export interface ByteRange {
  /** The first byte, from 0. */
  readonly at: number;
  /** At least 1. */
  readonly bytes: number;
}

export interface GetOptions {
  /** The whole object when absent. */
  readonly range?: ByteRange;
  /** Bounds the answer, and the memory for it. */
  readonly maxBytes: number;
}

export interface StoredObject {
  readonly key: string;
  readonly bytes: number;
  /** By the clock of the target, milliseconds since 1970; absent if the target does not say. */
  readonly modifiedAt?: number;
}

/**
 * A folder or a bucket for objects that never change. Other programs, and other storages of this kind, may
 * use it at the same time. Its keeper is not trusted: callers verify what they read.
 *
 * Keys have 1 to {@link KEY_CHARS_MAX} characters of `A-Z a-z 0-9 . _ - /`. No part between slashes is empty,
 * `.` or `..`. In a folder, a key cannot continue another one after a slash. Every operation throws
 * {@link ObjectStorageError} and may run beside others. A closed storage refuses operations as `unavailable`.
 */
export interface ObjectStorage extends AsyncDisposable {
  /** For logs and `doctor`. It has no credential. */
  readonly name: string;
  /** What the last answer says of the target's clock; absent for a target without one. */
  readonly lastAnswer?: DatedAnswer | undefined;

  /**
   * Stores an object. It is durable once this resolves. A repetition with the same bytes resolves as well, so
   * that a caller may repeat a call whose outcome it does not know.
   *
   * @param body unchanged until this resolves.
   * @throws ObjectStorageError `conflict` when the key has other bytes. A target that cannot tell overwrites
   *   them; each implementation says which.
   */
  put(key: string, body: Uint8Array): Promise<void>;

  /**
   * @returns the object or the range of it, with fewer bytes than the range only at the end of the object;
   *   undefined when there is no object.
   * @throws ObjectStorageError `too-large` for more than `maxBytes`, before they are read.
   */
  get(key: string, options: GetOptions): Promise<Buffer | undefined>;

  /**
   * The objects whose keys begin with a prefix, in ascending order of the bytes of their keys. They are
   * fetched as they are consumed. Entries with names that are no keys are left out. What is stored or deleted
   * meanwhile may be listed.
   *
   * @param prefix any beginning of a key, empty for all.
   * @param after only keys after this one.
   */
  list(prefix: string, after?: string): AsyncIterable<StoredObject>;

  /** Deletes an object, if there is one. Only pruning may do so. */
  delete(key: string): Promise<void>;
}

const KEY_CHARS_MAX = 512;
const KEY = /^[\w.-]+(?:\/[\w.-]+)*$/;
const PREFIX = /^(?:[\w.-]+\/)*[\w.-]*$/;
const UPWARDS = /(?:^|\/)\.{1,2}(?:\/|$)/;

/** Whether a text is a key of {@link ObjectStorage}. */
export function isKey(text: string): boolean {
  return text.length <= KEY_CHARS_MAX && KEY.test(text) && !UPWARDS.test(text);
}

/** A key that is none is a defect of the caller. */
export function assertKey(key: string): void {
  assert(isKey(key), 'not a key of an object storage');
}

export function assertPrefix(prefix: string): void {
  assert(
    prefix.length <= KEY_CHARS_MAX && PREFIX.test(prefix) && !UPWARDS.test(`${prefix}~`),
    'not a prefix of keys',
  );
}

export function assertGet(key: string, { range, maxBytes }: GetOptions): void {
  assertKey(key);
  assert(Number.isSafeInteger(maxBytes) && maxBytes >= 0);
  if (range === undefined) return;
  assert(Number.isSafeInteger(range.at + range.bytes) && range.at >= 0 && range.bytes > 0);
}
