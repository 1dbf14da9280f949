/**
 * The unencrypted head of a project's catalog (docs/formats/catalog.md). Bundoc writes it, and reads it
 * without keys when it starts. BunKMS reads its copy of `project.json` to recover keys. Only opening the
 * catalog authenticates the head.
 */

export const CATALOG_FILE = 'catalog';

const MAGIC = Buffer.from('BUNDOCC2', 'latin1');
const KEY_VERSION = 8;
const ID = 12;
const HANDLE = 28;
const SEGMENT = 36;
const FRAME = 44;
const TAG = 48;
const DOCUMENTS = 64;
const BYTES = 72;
const FILE_LENGTH = 80;
const FILE = 84;
/**
 * Maximum bytes of the copy of `project.json`. With 1,000 key versions it needs a third of that, and 1.1 MB
 * if outside keys with the largest wrapped shares protect them all.
 */
const FILE_BYTES_MAX = 1_310_720;

/** Bytes of the largest head. */
export const CATALOG_HEAD_BYTES_MAX = FILE + FILE_BYTES_MAX;

/** The last part of the log that the catalog covers. */
export interface CoveredPlace {
  readonly segment: number;
  readonly frame: number;
  /** 16 bytes. */
  readonly tag: Buffer;
}

export interface CatalogStart {
  readonly keyVersion: number;
  /** Random, 16 bytes. */
  readonly id: Buffer;
  /** Identifies the project's parts in the log; 16 hex digits. */
  readonly handle: string;
  /** Undefined while the catalog covers no part of the log. */
  readonly covered: CoveredPlace | undefined;
  /** Documents that are not deleted, and their sealed bytes. */
  readonly documents: number;
  readonly bytes: number;
}

export interface CatalogHead extends CatalogStart {
  /** The text of `project.json`. */
  readonly projectFile: Buffer;
}

export function encodeCatalogHead(head: CatalogHead): Buffer {
  const bytes = Buffer.alloc(FILE + head.projectFile.length);
  MAGIC.copy(bytes);
  bytes.writeUInt32BE(head.keyVersion, KEY_VERSION);
  head.id.copy(bytes, ID);
  bytes.write(head.handle, HANDLE, 'hex');
  if (head.covered !== undefined) {
    bytes.writeBigUInt64BE(BigInt(head.covered.segment), SEGMENT);
    bytes.writeUInt32BE(head.covered.frame, FRAME);
    head.covered.tag.copy(bytes, TAG);
  }
  bytes.writeBigUInt64BE(BigInt(head.documents), DOCUMENTS);
  bytes.writeBigUInt64BE(BigInt(head.bytes), BYTES);
  bytes.writeUInt32BE(head.projectFile.length, FILE_LENGTH);
  head.projectFile.copy(bytes, FILE);
  return bytes;
}

function parseCatalogStart(bytes: Buffer): CatalogStart | undefined {
  if (bytes.length < FILE || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
  const segment = Number(bytes.readBigUInt64BE(SEGMENT));
  const place = {
    segment,
    frame: bytes.readUInt32BE(FRAME),
    tag: Buffer.from(bytes.subarray(TAG, DOCUMENTS)),
  };
  return {
    keyVersion: bytes.readUInt32BE(KEY_VERSION),
    id: Buffer.from(bytes.subarray(ID, HANDLE)),
    handle: bytes.toString('hex', HANDLE, SEGMENT),
    covered: segment === 0 ? undefined : place,
    documents: Number(bytes.readBigUInt64BE(DOCUMENTS)),
    bytes: Number(bytes.readBigUInt64BE(BYTES)),
  };
}

/** Reads the head of a catalog; undefined for other bytes. `end` is its length. */
export function parseCatalogHead(bytes: Buffer): (CatalogHead & { readonly end: number }) | undefined {
  const start = parseCatalogStart(bytes);
  if (start === undefined) return undefined;
  const end = FILE + bytes.readUInt32BE(FILE_LENGTH);
  if (end > bytes.length || end > CATALOG_HEAD_BYTES_MAX) return undefined;
  return { ...start, projectFile: Buffer.from(bytes.subarray(FILE, end)), end };
}
