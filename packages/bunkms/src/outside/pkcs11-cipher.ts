import { randomBytes } from 'node:crypto';
import { endianness } from 'node:os';
import type { Pkcs11Settings } from './pkcs11-calls.ts';
import { CKR, codeOf, type Handle, Pkcs11Error, type Pkcs11Library } from './pkcs11-library.ts';
import { BLOB_BYTES_MAX, SECRET_BYTES } from './port.ts';

/** Classes of objects. */
const CKO = { PUBLIC_KEY: 2, PRIVATE_KEY: 3, SECRET_KEY: 4 } as const;
/** Attributes of objects. */
const CKA = {
  CLASS: 0x0,
  LABEL: 0x3,
  KEY_TYPE: 0x100,
  SENSITIVE: 0x103,
  MODULUS: 0x120,
  VALUE_LEN: 0x161,
  EXTRACTABLE: 0x162,
} as const;
const CKK = { RSA: 0x0, AES: 0x1f } as const;
const CKM = { RSA_PKCS_OAEP: 0x9, AES_GCM: 0x1087 } as const;
/** Numbers of hashes and of their mask generation functions. */
const OAEP = {
  sha256: { hashAlg: 0x250, mgf: 0x2 },
  sha1: { hashAlg: 0x220, mgf: 0x1 },
} as const;
const CKZ_DATA_SPECIFIED = 1;
/** Of pkcs11js: how it reads the parameter of a mechanism. */
const PARAMETER = { RSA_OAEP: 4, GCM: 25 } as const;

const MAKE = 'make another key, and name it in the entry';
const AES_KEY_BYTES = 32;
/** RSA keys of 2,048 to 3,072 bits: their ciphertext is as long as the modulus, and must fit a blob. */
const MODULUS_BYTES = { min: 256, max: BLOB_BYTES_MAX } as const;
/** The first byte of what AES-GCM has sealed. The ciphertext of RSA has no room for one. */
const AES_GCM_BLOB = 1;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const AAD = Buffer.from('bunkms/outside/v1');

/**
 * A key of a token. Its calls throw errors of the library, and {@link Pkcs11Error}.
 *
 * | blob | |
 * |---|---|
 * | AES-GCM | 0x01, nonce (12), ciphertext, tag (16); AAD `bunkms/outside/v1` |
 * | RSA-OAEP | the ciphertext, as long as the modulus; no label |
 */
export interface Pkcs11TokenKey {
  wrap(session: Handle, secret: Buffer): Buffer;
  unwrap(session: Handle, blob: Buffer): Buffer;
}

/**
 * Finds the key, and makes sure that the token never gives it away.
 *
 * @throws Pkcs11Error `denied` when it is gone, `unavailable` when it is not of use.
 */
export function findKey(
  library: Pkcs11Library,
  slot: Handle,
  session: Handle,
  { key, oaepHash }: Pkcs11Settings,
): Pkcs11TokenKey {
  const find = (type: number) => findObject(library, session, type, key);
  const secret = find(CKO.SECRET_KEY);
  const held = secret ?? find(CKO.PRIVATE_KEY);
  if (held === undefined)
    throw new Pkcs11Error('denied', `no key of the token has the label ${quote(key)}`, {
      remedy: 'make that key, or correct key in the entry',
    });
  const [type, sensitive, extractable] = [CKA.KEY_TYPE, CKA.SENSITIVE, CKA.EXTRACTABLE].map((attribute) =>
    attributeOf(library, session, held, attribute),
  );
  if (sensitive?.[0] !== 1 || extractable?.[0] !== 0)
    throw new Pkcs11Error('unavailable', 'the key can be read out', {
      remedy: 'make one with CKA_SENSITIVE true and CKA_EXTRACTABLE false',
    });
  const expected = secret === undefined ? CKK.RSA : CKK.AES;
  if (type === undefined || numberOf(type) !== expected)
    throw new Pkcs11Error('unavailable', 'the key is neither an AES key nor an RSA pair', { remedy: MAKE });
  const mechanism = secret === undefined ? 'RSA_PKCS_OAEP' : 'AES_GCM';
  if (!library.C_GetMechanismList(slot).includes(CKM[mechanism]))
    throw new Pkcs11Error('unavailable', `the token lacks the mechanism of this key: CKM_${mechanism}`, {
      remedy: `make ${secret === undefined ? 'an AES key' : 'an RSA pair'} instead`,
    });
  if (secret !== undefined) {
    if (numberOf(attributeOf(library, session, held, CKA.VALUE_LEN)) !== AES_KEY_BYTES)
      throw new Pkcs11Error('unavailable', `the AES key must have ${AES_KEY_BYTES * 8} bits`, {
        remedy: MAKE,
      });
    return new AesGcmKey(library, secret);
  }
  const { length } = attributeOf(library, session, held, CKA.MODULUS);
  if (length < MODULUS_BYTES.min || length > MODULUS_BYTES.max) {
    const bits = `${MODULUS_BYTES.min * 8} to ${MODULUS_BYTES.max * 8} bits`;
    throw new Pkcs11Error('unavailable', `the RSA key has ${length * 8} bits; it must have ${bits}`, {
      remedy: MAKE,
    });
  }
  const publicKey = find(CKO.PUBLIC_KEY);
  if (publicKey === undefined)
    throw new Pkcs11Error('unavailable', `the token has no public key with the label ${quote(key)}`, {
      remedy: 'give both keys of the pair that label',
    });
  return new RsaOaepKey(library, { publicKey, privateKey: held }, length, oaepHash);
}

/** NIST SP 800-38D, by the mechanism CKM_AES_GCM of PKCS #11 v3.1, 6.13. */
class AesGcmKey implements Pkcs11TokenKey {
  readonly #library: Pkcs11Library;
  readonly #key: Handle;

  constructor(library: Pkcs11Library, key: Handle) {
    this.#library = library;
    this.#key = key;
  }

  wrap(session: Handle, secret: Buffer): Buffer {
    const nonce = randomBytes(NONCE_BYTES);
    this.#library.C_EncryptInit(session, mechanismOf(nonce), this.#key);
    const sealed = this.#library.C_Encrypt(session, secret, Buffer.alloc(secret.length + TAG_BYTES));
    if (sealed.length !== secret.length + TAG_BYTES)
      throw new Pkcs11Error('unavailable', 'the token seals without a tag of 16 bytes');
    return Buffer.concat([Buffer.of(AES_GCM_BLOB), nonce, sealed]);
  }

  unwrap(session: Handle, blob: Buffer): Buffer {
    const bytes = blob.length - 1 - NONCE_BYTES - TAG_BYTES;
    if (blob[0] !== AES_GCM_BLOB || bytes < SECRET_BYTES.min || bytes > SECRET_BYTES.max)
      throw new Pkcs11Error('damaged', 'these bytes were not sealed by AES-GCM here');
    const nonce = blob.subarray(1, 1 + NONCE_BYTES);
    this.#library.C_DecryptInit(session, mechanismOf(nonce), this.#key);
    // Some modules write the tag behind the secret before they check it.
    const output = Buffer.alloc(bytes + TAG_BYTES);
    return takeFrom(output, this.#library.C_Decrypt(session, blob.subarray(1 + NONCE_BYTES), output));
  }
}

function mechanismOf(nonce: Buffer) {
  const bits = { ivBits: NONCE_BYTES * 8, tagBits: TAG_BYTES * 8 };
  return { mechanism: CKM.AES_GCM, parameter: { type: PARAMETER.GCM, iv: nonce, aad: AAD, ...bits } };
}

/** RFC 8017, 7.1, by the mechanism CKM_RSA_PKCS_OAEP of PKCS #11 v3.1, 6.1. */
class RsaOaepKey implements Pkcs11TokenKey {
  readonly #library: Pkcs11Library;
  readonly #pair: { readonly publicKey: Handle; readonly privateKey: Handle };
  readonly #modulusBytes: number;
  readonly #hash: Pkcs11Settings['oaepHash'];

  constructor(
    library: Pkcs11Library,
    pair: { readonly publicKey: Handle; readonly privateKey: Handle },
    modulusBytes: number,
    hash: Pkcs11Settings['oaepHash'],
  ) {
    this.#library = library;
    this.#pair = pair;
    this.#modulusBytes = modulusBytes;
    this.#hash = hash;
  }

  wrap(session: Handle, secret: Buffer): Buffer {
    this.#begin(() => this.#library.C_EncryptInit(session, this.#mechanism(), this.#pair.publicKey));
    // Some modules believe that they have filled the buffer, whatever its length.
    return this.#library.C_Encrypt(session, secret, Buffer.alloc(this.#modulusBytes));
  }

  unwrap(session: Handle, blob: Buffer): Buffer {
    if (blob.length !== this.#modulusBytes)
      throw new Pkcs11Error('damaged', `what this RSA key wraps has ${this.#modulusBytes} bytes`);
    this.#begin(() => this.#library.C_DecryptInit(session, this.#mechanism(), this.#pair.privateKey));
    const output = Buffer.alloc(this.#modulusBytes);
    return takeFrom(output, this.#library.C_Decrypt(session, blob, output));
  }

  #mechanism() {
    const parameter = { type: PARAMETER.RSA_OAEP, ...OAEP[this.#hash], source: CKZ_DATA_SPECIFIED };
    return { mechanism: CKM.RSA_PKCS_OAEP, parameter };
  }

  #begin(init: () => void): void {
    try {
      init();
    } catch (error) {
      const code = codeOf(error);
      if (code !== CKR.ARGUMENTS_BAD && code !== CKR.MECHANISM_PARAM_INVALID) throw error;
      throw new Pkcs11Error('unavailable', `the token refuses RSA-OAEP with ${this.#hash}`, {
        remedy: 'give the entry another oaep_hash, or use an AES key',
      });
    }
  }
}

/** A copy of a result; its buffer is wiped. */
function takeFrom(output: Buffer, result: Buffer): Buffer {
  const copy = Buffer.from(result);
  output.fill(0);
  return copy;
}

/** The only object of a class with a label. */
function findObject(
  library: Pkcs11Library,
  session: Handle,
  type: number,
  label: string,
): Handle | undefined {
  library.C_FindObjectsInit(session, [
    { type: CKA.CLASS, value: type },
    { type: CKA.LABEL, value: label },
  ]);
  const found = library.C_FindObjects(session, 2);
  library.C_FindObjectsFinal(session);
  if (found.length > 1)
    throw new Pkcs11Error('unavailable', `several keys of the token have the label ${quote(label)}`, {
      remedy: 'give the right one a label of its own',
    });
  return found[0];
}

function attributeOf(library: Pkcs11Library, session: Handle, object: Handle, type: number): Buffer {
  const [attribute] = library.C_GetAttributeValue(session, object, [{ type }]);
  return attribute?.value ?? Buffer.alloc(0);
}

/** A CK_ULONG in the order of this machine. Those that are read here are small. */
function numberOf(value: Buffer): number {
  return endianness() === 'LE' ? value.readUInt32LE(0) : value.readUInt32BE(value.length - 4);
}

function quote(text: string): string {
  return JSON.stringify(text);
}
