import { createHmac, type KeyObject, randomBytes } from 'node:crypto';
import { aadOf, deriveKey, KEY_BYTES, open, seal, takeKey } from '@bundoc/shared/aead';
import type { DocumentRef } from './stored-text.ts';

/** Hex characters of a document's file name: the first 16 bytes of its HMAC. */
const FILE_NAME_BYTES = 16;

/**
 * Seals and opens everything of one project under one version of its DEK.
 *
 * Document files are sealed under the DEK itself, so that whoever holds it can open one with ten lines of any
 * language; everything else uses a subkey of its own (ADR 0003).
 */
export class ProjectCipher {
  readonly #project: string;
  readonly #version: number;
  readonly #dek: KeyObject;
  readonly #nameKey: KeyObject;

  constructor(project: string, version: number, dek: KeyObject, nameKey: KeyObject) {
    this.#project = project;
    this.#version = version;
    this.#dek = dek;
    this.#nameKey = nameKey;
  }

  /** Where a document lies: opaque, the same for the same document as long as the project lives. */
  fileName(ref: DocumentRef): string {
    return createHmac('sha256', this.#nameKey)
      .update(`${ref.collection}\0${ref.id}`, 'utf8')
      .digest()
      .toString('hex', 0, FILE_NAME_BYTES);
  }

  /** The DEK version that this seals under. */
  get version(): number {
    return this.#version;
  }

  /** The key of one use of a journal segment; undefined for another version. */
  frameKey(version: number, segmentId: Buffer): KeyObject | undefined {
    return version === this.#version ? deriveKey(this.#dek, 'bundoc/journal/v1', segmentId) : undefined;
  }

  /** The key of one catalog snapshot; undefined for another version. */
  snapshotKey(version: number, snapshotId: Buffer): KeyObject | undefined {
    return version === this.#version ? deriveKey(this.#dek, 'bundoc/catalog/v1', snapshotId) : undefined;
  }

  /** `nonce(12) | ciphertext | tag(16)`: the whole content of a document file. */
  sealDocument(fileName: string, text: Buffer): Buffer {
    return seal(this.#dek, text, this.#documentAad(fileName));
  }

  /** @throws OpenError for bytes that were changed, or sealed for another file, project or key. */
  openDocument(fileName: string, sealed: Buffer): Buffer {
    return open(this.#dek, sealed, this.#documentAad(fileName));
  }

  #documentAad(fileName: string): Buffer {
    return aadOf('bundoc/doc/v1', this.#project, fileName);
  }
}

/** A new name key, sealed for `project.json` under a subkey of the DEK version that it is listed with. */
export function sealNewNameKey(project: string, version: number, dek: KeyObject): Buffer {
  const nameKey = randomBytes(KEY_BYTES);
  try {
    return seal(nameKeySubkey(dek), nameKey, nameKeyAad(project, version));
  } finally {
    nameKey.fill(0);
  }
}

/** @throws OpenError for a name key of another project, version or DEK. */
export function openNameKey(project: string, version: number, dek: KeyObject, sealed: Buffer): KeyObject {
  return takeKey(open(nameKeySubkey(dek), sealed, nameKeyAad(project, version)));
}

function nameKeySubkey(dek: KeyObject): KeyObject {
  return deriveKey(dek, 'bundoc/name-key/v1');
}

function nameKeyAad(project: string, version: number): Buffer {
  return aadOf('bundoc/name-key/v1', project, String(version));
}
