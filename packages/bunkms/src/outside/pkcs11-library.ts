import { createRequire } from 'node:module';
import { formatError } from '@bundoc/shared/logs/error-line';
import { printable } from '@bundoc/shared/logs/printable';
import type { OutsideFault } from './port.ts';

/** A session, a slot or an object of a token. */
export type Handle = Buffer;

interface Attribute {
  readonly type: number;
  readonly value?: number | string | Buffer;
}

interface Mechanism {
  readonly mechanism: number;
  readonly parameter: { readonly type: number };
}

/** The used part of the class `PKCS11` of pkcs11js. An installation may lack the package and its types. */
export interface Pkcs11Library {
  load(path: string): void;
  C_Initialize(): void;
  C_Finalize(): void;
  C_GetSlotList(tokenPresent: boolean): Handle[];
  C_GetTokenInfo(slot: Handle): { label: string; serialNumber: string; flags: number };
  C_GetMechanismList(slot: Handle): number[];
  C_OpenSession(slot: Handle, flags: number): Handle;
  C_CloseSession(session: Handle): void;
  C_GetSessionInfo(session: Handle): { state: number };
  C_Login(session: Handle, userType: number, pin: string): void;
  C_FindObjectsInit(session: Handle, template: Attribute[]): void;
  C_FindObjects(session: Handle, maxObjectCount: number): Handle[];
  C_FindObjectsFinal(session: Handle): void;
  C_GetAttributeValue(session: Handle, object: Handle, template: Attribute[]): { value: Buffer }[];
  C_EncryptInit(session: Handle, mechanism: Mechanism, key: Handle): void;
  C_Encrypt(session: Handle, input: Buffer, output: Buffer): Buffer;
  C_DecryptInit(session: Handle, mechanism: Mechanism, key: Handle): void;
  C_Decrypt(session: Handle, input: Buffer, output: Buffer): Buffer;
}

interface Pkcs11Package {
  readonly PKCS11: new () => Pkcs11Library;
}

/** Return values by name. Source: PKCS #11 v3.1, its header `pkcs11t.h`. */
export const CKR = {
  KEY_FUNCTION_NOT_PERMITTED: 0x68,
  ACTION_PROHIBITED: 0x1b,
  ENCRYPTED_DATA_INVALID: 0x40,
  ENCRYPTED_DATA_LEN_RANGE: 0x41,
  AEAD_DECRYPT_FAILED: 0x42,
  MECHANISM_PARAM_INVALID: 0x71,
  ARGUMENTS_BAD: 0x7,
  PIN_INCORRECT: 0xa0,
  PIN_INVALID: 0xa1,
  PIN_LEN_RANGE: 0xa2,
  USER_ALREADY_LOGGED_IN: 0x100,
} as const;

const DENIED: readonly number[] = [CKR.KEY_FUNCTION_NOT_PERMITTED, CKR.ACTION_PROHIBITED];

interface Pkcs11ErrorOptions {
  readonly remedy?: string;
  readonly isPinRefused?: boolean;
  readonly isOver?: boolean;
}

/** A call that failed in the child. */
export class Pkcs11Error extends Error {
  override readonly name = 'Pkcs11Error';
  readonly fault: OutsideFault;
  /** The token has refused the PIN. */
  readonly isPinRefused: boolean;
  /** Another process may do better: the module or its session is in an unknown state. */
  readonly isOver: boolean;
  readonly remedy: string | undefined;

  constructor(
    fault: OutsideFault,
    message: string,
    { remedy, isPinRefused = false, isOver = false }: Pkcs11ErrorOptions = {},
  ) {
    super(message);
    this.fault = fault;
    this.remedy = remedy;
    this.isPinRefused = isPinRefused;
    this.isOver = isOver;
  }

  /** An error of the library, or one that is of this class already. */
  static of(error: unknown): Pkcs11Error {
    if (error instanceof Pkcs11Error) return error;
    const text = `the token answered ${printable(formatError(error).slice(0, 200))}`;
    if (DENIED.includes(codeOf(error) ?? -1))
      return new Pkcs11Error('denied', text, { remedy: 'set CKA_ENCRYPT and CKA_DECRYPT of the key' });
    return new Pkcs11Error('unavailable', text, { isOver: true });
  }
}

/** The return value of the library that an error stands for. */
export function codeOf(error: unknown): number | undefined {
  return (error as { code?: number }).code;
}

/**
 * Loads a vendor's module by the optional package pkcs11js, and initializes it.
 *
 * @param from where the package is looked for.
 * @throws Pkcs11Error `unavailable` that says what to install.
 */
export function loadLibrary(module: string, from = import.meta.url): Pkcs11Library {
  const { PKCS11 } = loadPackage(from);
  const library = new PKCS11();
  try {
    library.load(module);
  } catch (error) {
    throw new Pkcs11Error('unavailable', `the module cannot be loaded: ${printable(formatError(error))}`, {
      remedy: 'correct module in the entry: the path of the PKCS#11 library of the vendor',
    });
  }
  try {
    library.C_Initialize();
  } catch (error) {
    throw new Pkcs11Error('unavailable', `the module does not start: ${printable(formatError(error))}`, {
      remedy: 'see its own configuration, and that the user of BunKMS may use the device',
    });
  }
  return library;
}

function loadPackage(from: string): Pkcs11Package {
  try {
    return createRequire(from)('pkcs11js') as Pkcs11Package;
  } catch (error) {
    const isThere = !/'pkcs11js'/.test(formatError(error));
    const [what, remedy] = isThere
      ? ['built', 'npm rebuild pkcs11js']
      : ['installed', 'npm install pkcs11js'];
    throw new Pkcs11Error('unavailable', `the package pkcs11js is not ${what}`, {
      remedy: `run "${remedy}" in the folder of bunkms`,
    });
  }
}
