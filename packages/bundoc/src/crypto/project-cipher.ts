import { createHmac, type KeyObject, randomBytes } from 'node:crypto';
import {
  aadOf,
  deriveKey,
  KEY_BYTES,
  OpenError,
  open,
  SEAL_OVERHEAD_BYTES,
  seal,
  sealInSteps,
  sealInto,
  takeKey,
} from '@bundoc/shared/crypto/aead';
import type { DocumentRef } from './stored-text.ts';

/** Hex digits of a document's file name: the first 16 bytes of its HMAC. */
const FILE_NAME_DIGITS = 32;

/** One version of a project's DEK. */
export interface DekVersion {
  readonly version: number;
  readonly dek: KeyObject;
}

/** Documents that this process has sealed and opened, of all projects. */
export const documentCounts = { sealed: 0, opened: 0 };

/**
 * Seals everything of one project under the current version of its DEK, and opens what any live version
 * sealed.
 *
 * Document files are sealed under the DEK itself, so that anyone who holds it can open one with ten lines of
 * any language. Everything else uses a separate subkey (ADR 0003).
 */
export class ProjectCipher {
  /** AAD of every document file, up to the file name: ASCII, as project ids are. */
  readonly #documentAadStart: string;
  readonly #current: DekVersion;
  readonly #deks: ReadonlyMap<number, KeyObject>;
  readonly #nameKey: KeyObject;

  /** @param versions all live ones, the current one first. */
  constructor(project: string, versions: readonly [DekVersion, ...DekVersion[]], nameKey: KeyObject) {
    this.#documentAadStart = aadOf('bundoc/doc/v1', project, '').toString('latin1');
    this.#current = versions[0];
    this.#deks = new Map(versions.map(({ version, dek }) => [version, dek]));
    this.#nameKey = nameKey;
  }

  /** The opaque file name of a document. It stays the same for the life of the project. */
  fileName(ref: DocumentRef): string {
    return createHmac('sha256', this.#nameKey)
      .update(`${ref.collection}\0${ref.id}`, 'utf8')
      .digest('hex')
      .slice(0, FILE_NAME_DIGITS);
  }

  /** The DEK version that seals. */
  get version(): number {
    return this.#current.version;
  }

  /** The oldest live version. */
  get oldestVersion(): number {
    return Math.min(...this.#deks.keys());
  }

  /** The live versions, the current one first. */
  get versions(): readonly number[] {
    return [...this.#deks.keys()];
  }

  /** True for a version that is live. */
  hasVersion(version: number): boolean {
    return this.#deks.has(version);
  }

  /**
   * The key of one purpose, identified by `info` and `salt`; undefined for a version that is not live.
   */
  subkey(version: number, info: string, salt?: Buffer): KeyObject | undefined {
    const dek = this.#deks.get(version);
    return dek === undefined ? undefined : deriveKey(dek, info, salt);
  }

  /** A key for one kind of tokens. Like the names of documents, it survives rotations of the DEK. */
  tokenKey(info: string): KeyObject {
    return deriveKey(this.#nameKey, info);
  }

  /**
   * `nonce(12) | ciphertext | tag(16)`: the whole content of a document file, under the current version.
   *
   * @param target has room for `text.length + SEAL_OVERHEAD_BYTES`; a new buffer by default.
   * @returns the target.
   */
  sealDocument(
    fileName: string,
    text: Buffer,
    target: Buffer = Buffer.allocUnsafeSlow(text.length + SEAL_OVERHEAD_BYTES),
  ): Buffer {
    sealInto(this.#current.dek, text, this.#documentAad(fileName), target);
    documentCounts.sealed++;
    return target;
  }

  /** {@link sealDocument} into `target`, yielding between the steps. */
  sealDocumentInSteps(fileName: string, text: Buffer, target: Buffer): Generator<void> {
    documentCounts.sealed++;
    return sealInSteps(this.#current.dek, text, this.#documentAad(fileName), target);
  }

  /**
   * @param version the version that probably sealed it; the others are tried after it.
   * @throws OpenError for bytes that were changed, or sealed for another file, project or key.
   */
  openDocument(fileName: string, sealed: Buffer, version: number = this.#current.version): Buffer {
    documentCounts.opened++;
    const aad = this.#documentAad(fileName);
    const likely = this.#deks.get(version);
    if (likely !== undefined) {
      try {
        return open(likely, sealed, aad);
      } catch (error) {
        if (!(error instanceof OpenError) || this.#deks.size === 1) throw error;
      }
    }
    for (const [other, dek] of this.#deks) {
      if (other === version) continue;
      try {
        return open(dek, sealed, aad);
      } catch (error) {
        if (!(error instanceof OpenError)) throw error;
      }
    }
    throw new OpenError();
  }

  /**
   * {@link openDocument} under one version only.
   *
   * @throws OpenError, also when the version is not live.
   */
  openDocumentOf(fileName: string, sealed: Buffer, version: number): Buffer {
    const dek = this.#deks.get(version);
    if (dek === undefined) throw new OpenError();
    documentCounts.opened++;
    return open(dek, sealed, this.#documentAad(fileName));
  }

  /** File names are hex, so the checks of the parts before them hold for the whole AAD. */
  #documentAad(fileName: string): Buffer {
    return Buffer.from(this.#documentAadStart + fileName, 'latin1');
  }
}

/** A new name key, which stays the same for the life of the project. */
export function newNameKey(): KeyObject {
  return takeKey(randomBytes(KEY_BYTES));
}

/**
 * The name key, sealed for `project.json` under a subkey of the DEK version that it is listed with.
 *
 * @param facts what the file says about that version, authenticated with the key.
 */
export function sealNameKey(
  project: string,
  { version, dek }: DekVersion,
  nameKey: KeyObject,
  facts: readonly string[],
): Buffer {
  const bytes = nameKey.export();
  try {
    return seal(nameKeySubkey(dek), bytes, nameKeyAad(project, version, facts));
  } finally {
    bytes.fill(0);
  }
}

/** @throws OpenError for a name key of another project, version or DEK, or one sealed with other facts. */
export function openNameKey(
  project: string,
  { version, dek }: DekVersion,
  sealed: Buffer,
  facts: readonly string[],
): KeyObject {
  return takeKey(open(nameKeySubkey(dek), sealed, nameKeyAad(project, version, facts)));
}

function nameKeySubkey(dek: KeyObject): KeyObject {
  return deriveKey(dek, 'bundoc/name-key/v1');
}

function nameKeyAad(project: string, version: number, facts: readonly string[]): Buffer {
  return aadOf('bundoc/name-key/v1', project, String(version), ...facts);
}
