import { createHmac, type KeyObject } from 'node:crypto';
import { aadOf, OpenError, open, seal } from '@bundoc/shared/crypto/aead';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import { ByteReader, ByteWriter } from '../../port/bytes.ts';
import { type DocumentState, type IdempotencyRecord, readState, writeState } from '../../port/state.ts';

/** Bytes of a token: the same part of an HMAC as for a document's name. */
const TOKEN_BYTES = 16;
const TOKENS_KEPT_MAX = 1_000;
const STATE_BYTES = 256;
const ID_BYTES = 8;

type Purpose = 'row' | 'collection' | 'used-key' | 'index' | 'seals' | 'keys' | 'runs';

/** The purpose of the keys of pages. Each run has its own key. */
const PAGES = 'bundoc/postgres-pages/v1';

/** What the keys of a document in indexes are bound to. */
export type KeyedState = Pick<DocumentState, 'fileName' | 'createdSeq' | 'seq'>;

/** Seals and opens the pages of one run. */
export interface PageCipher {
  seal(id: number, page: Buffer): Buffer;
  /** @throws OpenError. */
  open(id: number, sealed: Buffer): Buffer;
}

/** A row is sealed under a key version that the open project does not have, so it must be reopened. */
export class VersionUnknown extends Error {
  override readonly name = 'VersionUnknown';
}

/** The error for a row under a version that is not at hand: a later one, or one that was destroyed. */
export function versionMissing(version: number, { version: current }: Pick<ProjectCipher, 'version'>): Error {
  return version > current
    ? new VersionUnknown(`version ${version} of the key is not at hand`)
    : new OpenError();
}

/**
 * Names and seals everything in the database except the documents' own bytes. Collections and indexed values
 * are named by tokens. Everything else is sealed under subkeys, with its place as AAD:
 * - the state of a document;
 * - the name of a collection;
 * - the record of an idempotency key;
 * - the definition of an index, and the description of its runs;
 * - the keys of a document in indexes;
 * - the number of seals of a key version.
 *
 * The formats are in docs/formats/postgres-rows.md.
 */
export class RowCipher {
  readonly #project: string;
  readonly #cipher: ProjectCipher;
  /** By version. */
  readonly #subkeys = new Map<number, Map<Purpose, KeyObject>>();
  readonly #tokenKeys = new Map<Purpose, KeyObject>();
  /** A plain map: a cache that allocates its slots in advance takes hundreds of KiB for each project. */
  readonly #collectionTokens = new Map<string, Buffer>();

  /** The version that seals. */
  readonly version: number;

  constructor(project: string, cipher: ProjectCipher, version: number = cipher.version) {
    this.#project = project;
    this.#cipher = cipher;
    this.version = version;
  }

  /** True for a version that is live. */
  hasVersion(version: number): boolean {
    return this.#cipher.hasVersion(version);
  }

  /** The name of a collection in the database. */
  collectionToken(collection: string): Buffer {
    const known = this.#collectionTokens.get(collection);
    if (known !== undefined) return known;
    const token = this.#token('collection', collection);
    if (this.#collectionTokens.size >= TOKENS_KEPT_MAX) this.#collectionTokens.clear();
    this.#collectionTokens.set(collection, token);
    return token;
  }

  /**
   * The name of an idempotency key in the database. It is keyed, because a plain hash of a client's choice
   * could be guessed.
   */
  idempotencyToken(key: string): Buffer {
    return this.#token('used-key', key);
  }

  /**
   * The name of a combination of values in the database: equal for equal values in one index.
   *
   * @param index the definition of the index.
   * @param key each of its units is a byte (`values/key.ts`).
   */
  indexToken(index: string, key: string): Buffer {
    return this.#token('index', `${index}\0`, Buffer.from(key, 'latin1'));
  }

  sealState(state: DocumentState): Buffer {
    const writer = new ByteWriter(STATE_BYTES);
    writeState(writer, state);
    return this.#seal('row', state.fileName, writer.finish());
  }

  /** @throws OpenError for the state of another document or project; VersionUnknown. */
  openState(name: Buffer, version: number, sealed: Buffer): DocumentState {
    const state = readState(new ByteReader(this.#open('row', name, version, sealed)));
    if (!state.fileName.equals(name)) throw new OpenError();
    return state;
  }

  sealCollectionName(token: Buffer, name: string): Buffer {
    return this.#seal('collection', token, Buffer.from(name));
  }

  /** @throws OpenError, VersionUnknown. */
  openCollectionName(token: Buffer, version: number, sealed: Buffer): string {
    return this.#open('collection', token, version, sealed).toString();
  }

  sealIdempotencyRecord(token: Buffer, { key, request, answer }: IdempotencyRecord): Buffer {
    return this.#seal('used-key', token, Buffer.from(`${key}${request}${answer}`));
  }

  /** @throws OpenError, VersionUnknown. */
  openIdempotencyRecord(token: Buffer, version: number, sealed: Buffer): Omit<IdempotencyRecord, 'atMs'> {
    const text = this.#open('used-key', token, version, sealed).toString();
    return { key: text.slice(0, 32), request: text.slice(32, 64), answer: text.slice(64) };
  }

  sealIndexSpec(id: number, text: string): Buffer {
    return this.#seal('index', encodePlace(id), Buffer.from(text));
  }

  /** @throws OpenError, VersionUnknown. */
  openIndexSpec(id: number, version: number, sealed: Buffer): string {
    return this.#open('index', encodePlace(id), version, sealed).toString();
  }

  /** @param keys of a document in this state, as `order/cell.ts` encodes them. */
  sealKeys(state: KeyedState, keys: Buffer): Buffer {
    return this.#seal('keys', placeOf(state), keys);
  }

  /** @throws OpenError, also for the keys of another state of the document; VersionUnknown. */
  openKeys(state: KeyedState, version: number, sealed: Buffer): Buffer {
    return this.#open('keys', placeOf(state), version, sealed);
  }

  /** Seals the description of an index's runs. @param version of the runs. */
  sealRuns(id: number, version: number, runs: Buffer): Buffer {
    return this.#seal('runs', Buffer.concat([encodePlace(id), encodePlace(version)]), runs);
  }

  /** @throws OpenError, VersionUnknown. */
  openRuns(id: number, version: number, keyVersion: number, sealed: Buffer): Buffer {
    return this.#open('runs', Buffer.concat([encodePlace(id), encodePlace(version)]), keyVersion, sealed);
  }

  /** Seals and opens the pages of a run. @throws VersionUnknown. */
  pageCipher(run: string, version: number = this.version): PageCipher {
    const salt = Buffer.from(run, 'hex');
    const key = this.#cipher.subkey(version, PAGES, salt);
    if (key === undefined) throw versionMissing(version, this.#cipher);
    const aad = (id: number) => aadOf(PAGES, this.#project, run, String(id));
    return {
      seal: (id, page) => seal(key, page, aad(id)),
      open: (id, sealed) => open(key, sealed, aad(id)),
    };
  }

  /** Seals the number of seals of the current version. */
  sealCount(count: number): Buffer {
    return this.#seal('seals', encodePlace(this.version), encodePlace(count));
  }

  /** 0 for a version that has not sealed yet. @throws OpenError, VersionUnknown. */
  openCount(version: number, sealed: Buffer | null): number {
    if (sealed === null) return 0;
    return Number(this.#open('seals', encodePlace(version), version, sealed).readBigUInt64BE());
  }

  #seal(purpose: Purpose, place: Buffer, plaintext: Buffer): Buffer {
    return seal(this.#subkey(purpose, this.version), plaintext, this.#aad(purpose, place));
  }

  #open(purpose: Purpose, place: Buffer, version: number, sealed: Buffer): Buffer {
    // The owner of the schema may let columns be null.
    if (!Buffer.isBuffer(place) || !Buffer.isBuffer(sealed)) throw new OpenError();
    return open(this.#subkey(purpose, version), sealed, this.#aad(purpose, place));
  }

  #aad(purpose: Purpose, place: Buffer): Buffer {
    return aadOf(`bundoc/postgres-${purpose}/v1`, this.#project, place.toString('hex'));
  }

  #subkey(purpose: Purpose, version: number): KeyObject {
    let ofVersion = this.#subkeys.get(version);
    const known = ofVersion?.get(purpose);
    if (known !== undefined) return known;
    const subkey = this.#cipher.subkey(version, `bundoc/postgres-${purpose}/v1`);
    if (subkey === undefined) throw versionMissing(version, this.#cipher);
    ofVersion ??= new Map();
    this.#subkeys.set(version, ofVersion.set(purpose, subkey));
    return subkey;
  }

  #token(purpose: Purpose, text: string, bytes?: Buffer): Buffer {
    let key = this.#tokenKeys.get(purpose);
    if (key === undefined) {
      key = this.#cipher.tokenKey(`bundoc/postgres-${purpose}/v1`);
      this.#tokenKeys.set(purpose, key);
    }
    const hmac = createHmac('sha256', key).update(text, 'utf8');
    if (bytes !== undefined) hmac.update(bytes);
    return hmac.digest().subarray(0, TOKEN_BYTES);
  }
}

/** The document, and which of its states. */
function placeOf({ fileName, createdSeq, seq }: KeyedState): Buffer {
  return Buffer.concat([fileName, encodePlace(createdSeq), encodePlace(seq)]);
}

/** The number of an index or a version as 8 bytes. */
function encodePlace(id: number): Buffer {
  const place = Buffer.alloc(ID_BYTES);
  place.writeBigUInt64BE(BigInt(id));
  return place;
}
