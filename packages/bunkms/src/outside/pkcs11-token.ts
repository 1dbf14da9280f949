import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { stampOf } from '@bundoc/shared/files/file-stamp';
import { printable } from '@bundoc/shared/logs/printable';
import { unreadable } from '@bundoc/shared/process/config';
import type { Pkcs11Settings } from './pkcs11-calls.ts';
import { findKey, type Pkcs11TokenKey } from './pkcs11-cipher.ts';
import { CKR, codeOf, type Handle, loadLibrary, Pkcs11Error, type Pkcs11Library } from './pkcs11-library.ts';
import { SECRET_BYTES } from './port.ts';

const CKF_SERIAL_SESSION = 0x4;
const CKU_USER = 1;
/** States of a session in which the user is logged in: read-only, and read and write. */
const CKS_USER: readonly number[] = [1, 3];
/** Flags of a token. */
const CKF_USER_PIN_FINAL_TRY = 0x20000;
const CKF_USER_PIN_LOCKED = 0x40000;

const PIN_REFUSED: readonly number[] = [CKR.PIN_INCORRECT, CKR.PIN_INVALID, CKR.PIN_LEN_RANGE];
/** Characters of labels in a message. */
const QUOTED_MAX = 200;
const NOT_OPENED: readonly number[] = [
  CKR.ENCRYPTED_DATA_INVALID,
  CKR.ENCRYPTED_DATA_LEN_RANGE,
  CKR.AEAD_DECRYPT_FAILED,
];

/**
 * A token with a key, logged in, in the child process. All its functions block.
 *
 * Source: PKCS #11 Specification Version 3.1 (OASIS).
 */
export class Pkcs11Token {
  readonly #library: Pkcs11Library;
  readonly #settings: Pkcs11Settings;
  readonly #slot: Handle;
  /** Keeps the user logged in: a token logs out with the last session. */
  readonly #login: Handle;
  /** For calls. A failed call may leave an unfinished operation, so it replaces the session. */
  #session: Handle | undefined;
  #key: Pkcs11TokenKey | undefined;

  private constructor(library: Pkcs11Library, settings: Pkcs11Settings, slot: Handle, login: Handle) {
    this.#library = library;
    this.#settings = settings;
    this.#slot = slot;
    this.#login = login;
  }

  /**
   * Loads the module, finds the token and logs in. It tries the PIN once, and never as the last try before
   * the token locks it.
   *
   * @param pinStamp of the file of the PIN; another version of it is not used.
   * @throws Pkcs11Error `unavailable`.
   */
  static open(settings: Pkcs11Settings, pinStamp: string): Pkcs11Token {
    const library = loadLibrary(settings.module);
    const { slot, flags } = findToken(library, settings);
    if ((flags & CKF_USER_PIN_LOCKED) !== 0)
      throw new Pkcs11Error('unavailable', 'the token has locked the PIN', {
        remedy: 'unlock it with the tool of the token',
      });
    if ((flags & CKF_USER_PIN_FINAL_TRY) !== 0)
      throw new Pkcs11Error('unavailable', 'the token locks the PIN after one more wrong try', {
        remedy: 'log in once with the tool of the token',
      });
    const session = library.C_OpenSession(slot, CKF_SERIAL_SESSION);
    logIn(library, session, readPin(settings.pinFile, pinStamp));
    return new Pkcs11Token(library, settings, slot, session);
  }

  wrap(secret: Uint8Array): Buffer {
    return this.#run((session, key) => key.wrap(session, bufferOf(secret)));
  }

  unwrap(blob: Uint8Array): Buffer {
    try {
      return this.#run((session, key) => key.unwrap(session, bufferOf(blob)));
    } catch (error) {
      const code = codeOf(error);
      if (error instanceof Pkcs11Error || code === undefined) throw error;
      const failed = Pkcs11Error.of(error);
      if (failed.fault === 'denied') throw failed;
      // Many tokens have a general error for bytes that do not open. Whether the key works decides.
      if (!NOT_OPENED.includes(code)) this.#probe(failed);
      throw new Pkcs11Error('damaged', failed.message);
    }
  }

  /** @throws Pkcs11Error `unavailable` when the user is not logged in any more. */
  checkCredential(): void {
    const { state } = this.#library.C_GetSessionInfo(this.#login);
    if (!CKS_USER.includes(state))
      throw new Pkcs11Error('unavailable', 'the token has logged us out', { isOver: true });
  }

  /** Never throws. */
  close(): void {
    try {
      this.#library.C_Finalize();
    } catch {
      // The process ends.
    }
  }

  #run<T>(call: (session: Handle, key: Pkcs11TokenKey) => T): T {
    const library = this.#library;
    this.#session ??= library.C_OpenSession(this.#slot, CKF_SERIAL_SESSION);
    try {
      this.#key ??= findKey(library, this.#slot, this.#session, this.#settings);
      return call(this.#session, this.#key);
    } catch (error) {
      library.C_CloseSession(this.#session);
      this.#session = undefined;
      throw error;
    }
  }

  /** Throws `failed` unless the key opens what it wraps now. */
  #probe(failed: Pkcs11Error): void {
    const secret = randomBytes(SECRET_BYTES.min);
    try {
      const opened = this.#run((session, key) => key.unwrap(session, key.wrap(session, secret)));
      if (opened.equals(secret)) return;
    } catch {
      // The first error says more.
    }
    throw failed;
  }
}

function findToken(library: Pkcs11Library, { token, serial }: Pkcs11Settings) {
  const tokens = library.C_GetSlotList(true).map((slot) => ({ slot, ...library.C_GetTokenInfo(slot) }));
  const found = tokens
    .filter(({ label }) => trimmed(label) === token)
    .filter(({ serialNumber }) => serial === undefined || trimmed(serialNumber) === serial);
  const [first] = found;
  const named = `the label ${JSON.stringify(token)}${serial === undefined ? '' : ` and the serial ${serial}`}`;
  if (first === undefined) {
    const labelled = tokens.filter(({ label }) => trimmed(label) !== '');
    const known = labelled.map((one) => `"${trimmed(one.label)}" (serial ${trimmed(one.serialNumber)})`);
    const those = printable(known.join(', ').slice(0, QUOTED_MAX));
    throw new Pkcs11Error('unavailable', `no token has ${named}`, {
      remedy: `correct it in the entry; the module shows ${those === '' ? 'no token' : those}`,
    });
  }
  if (found.length > 1)
    throw new Pkcs11Error('unavailable', `${found.length} tokens have ${named}`, {
      remedy: 'give the entry a serial',
    });
  return first;
}

/** Texts of tokens are padded. */
function trimmed(text: string): string {
  return text.replaceAll('\0', ' ').trim();
}

/** The PIN, without a line break behind it. A string cannot be wiped: it lives in this process alone. */
function readPin(file: string, stamp: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    throw new Pkcs11Error('unavailable', `pin_file: ${unreadable(file, error)}`, {
      remedy: 'correct pin_file in the entry, or put the file there, readable by the user of BunKMS',
    });
  }
  const pin = bytes.toString('utf8').replace(/\r?\n$/, '');
  bytes.fill(0);
  if (pin === '')
    throw new Pkcs11Error('unavailable', `pin_file: ${file} holds no PIN`, { remedy: 'put the PIN into it' });
  // Else the parent, which compares stamps, would try a wrong PIN twice.
  if (stampOf(file) !== stamp) throw new Pkcs11Error('unavailable', 'pin_file has just changed');
  return pin;
}

function logIn(library: Pkcs11Library, session: Handle, pin: string): void {
  try {
    library.C_Login(session, CKU_USER, pin);
  } catch (error) {
    const code = codeOf(error) ?? -1;
    if (code === CKR.USER_ALREADY_LOGGED_IN) return;
    const { message } = Pkcs11Error.of(error);
    const isPinRefused = PIN_REFUSED.includes(code);
    throw new Pkcs11Error('unavailable', `${message} to the PIN in pin_file`, {
      isPinRefused,
      ...(isPinRefused && { remedy: 'put the PIN of the user into it; this one is not tried again' }),
    });
  }
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
