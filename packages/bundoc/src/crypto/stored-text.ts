import { AppError } from '@bundoc/shared/contract/app-error';
import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import { METADATA_MEMBERS } from '@bundoc/shared/contract/documents';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import type { ObjectMembers, RootMember } from '@bundoc/shared/json/scan';

/** Names a document within its project. Both parts are validated at the edge. */
export interface DocumentRef {
  readonly collection: string;
  readonly id: string;
}

/** A document's own members: the client's bytes between its braces, without metadata members. */
export interface DocumentContent {
  readonly bytes: Buffer;
  /** False when `bytes` contains only white space. */
  readonly hasMembers: boolean;
}

/** A client's body: the document's own members, and the metadata members that came with them. */
export interface DocumentBody {
  readonly content: DocumentContent;
  readonly id: string | undefined;
  readonly collection: string | undefined;
  readonly rev: string | undefined;
}

/** Characters of a revision: 96 random bits in hex. */
const REV_LENGTH = 24;
/** Characters of `2026-01-31T12:00:00.000Z`. */
const TIME_LENGTH = 24;
/** Offsets of values after the head of a stored text. The head ends where the value of `_rev` begins. */
const CREATED_START = REV_LENGTH + '","_created":"'.length;
const UPDATED_START = CREATED_START + TIME_LENGTH + '","_updated":"'.length;
const VALUES_LENGTH = UPDATED_START + TIME_LENGTH;

const METADATA_NAMES: ReadonlySet<string> = new Set(METADATA_MEMBERS);

/**
 * Reads a request body. The client's bytes are kept verbatim, so that number precision, key order and white
 * space survive. Only metadata members are cut out, by their decoded names, so that a PUT of a GET's answer
 * keeps the user's bytes.
 *
 * @throws AppError `invalid_json`; `invalid_document` for a top-level name that begins with `_` and is not a
 *   metadata member, or a metadata member of the wrong type.
 */
export function readDocumentBody(bytes: Buffer): DocumentBody {
  const { value, scan } = parseJsonObject(bytes);
  return documentBodyOf(bytes, value, scan);
}

/**
 * {@link readDocumentBody} for an object inside a larger text.
 *
 * @param bytes the text that `members` has offsets into.
 * @throws AppError `invalid_document`.
 */
export function documentBodyOf(
  bytes: Buffer,
  value: Record<string, unknown>,
  members: ObjectMembers,
): DocumentBody {
  for (const { name } of members.members) {
    if (name.startsWith('_') && !METADATA_NAMES.has(name))
      throw invalid('top-level names that begin with "_" are reserved');
  }
  return {
    content: ownMembers(bytes, members),
    id: stringMember(value, '_id'),
    collection: stringMember(value, '_collection'),
    rev: stringMember(value, '_rev'),
  };
}

function stringMember(value: Record<string, unknown>, name: string): string | undefined {
  if (!Object.hasOwn(value, name)) return undefined;
  const member = value[name];
  if (typeof member !== 'string') throw invalid(`"${name}" must be a string`);
  return member;
}

function ownMembers(bytes: Buffer, { members, bodyStart = 0, bodyEnd }: ObjectMembers): DocumentContent {
  const own = members.filter(({ name }) => !METADATA_NAMES.has(name));
  if (own.length === members.length)
    return { bytes: bytes.subarray(bodyStart, bodyEnd), hasMembers: own.length > 0 };
  if (own.length === 0) {
    // The white space around a cut member belongs to the user.
    const [first, last] = [members[0] as RootMember, members[members.length - 1] as RootMember];
    const before = bytes.subarray(first.start, first.nameStart);
    const after = bytes.subarray(endOfValue(bytes, last), last.end);
    return { bytes: Buffer.concat([before, after]), hasMembers: false };
  }
  const pieces: Buffer[] = [];
  for (const member of own) {
    if (pieces.length > 0) pieces.push(SEPARATOR);
    pieces.push(bytes.subarray(member.start, member.end));
  }
  return { bytes: Buffer.concat(pieces), hasMembers: true };
}

function endOfValue(bytes: Buffer, member: RootMember): number {
  let end = member.end;
  while (isSpace(bytes[end - 1])) end--;
  return end;
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

const COMMA = 0x2c;
const SEPARATOR = Buffer.of(COMMA);
const CLOSE_BRACE = 0x7d;

/**
 * The JSON text that is sealed, stored and returned: `{`, the metadata members in a fixed order, the client's
 * bytes, `}`.
 */
export function composeStoredText(metadata: DocumentMetadata, content: DocumentContent): Buffer {
  const head = `${headOf({ collection: metadata._collection, id: metadata._id })}${metadata._rev}","_created":"${metadata._created}","_updated":"${metadata._updated}"`;
  const headBytes = Buffer.byteLength(head);
  const contentStart = headBytes + Number(content.hasMembers);
  const text = Buffer.allocUnsafe(contentStart + content.bytes.length + 1);
  text.write(head);
  if (content.hasMembers) text[headBytes] = COMMA;
  text.set(content.bytes, contentStart);
  text[text.length - 1] = CLOSE_BRACE;
  return text;
}

/**
 * The text up to the value of `_rev`. Metadata values have fixed lengths, so the other offsets are constant.
 */
function headOf(ref: DocumentRef): string {
  return `{"_id":${JSON.stringify(ref.id)},"_collection":${JSON.stringify(ref.collection)},"_rev":"`;
}

/**
 * Metadata of a stored text, or undefined when the text is not the document `ref`. Someone who can place
 * authentic sealed bytes still cannot pass one document off as another.
 */
export function readStoredMetadata(text: Buffer, ref: DocumentRef): DocumentMetadata | undefined {
  const head = headOf(ref);
  const headBytes = Buffer.byteLength(head);
  // Most heads are ASCII. Those are compared as Latin-1, without copying the head into bytes.
  const isAscii = headBytes === head.length;
  const start = isAscii ? 0 : headBytes;
  const read = text.toString('latin1', start, headBytes + VALUES_LENGTH);
  if (isAscii ? !read.startsWith(head) : !text.subarray(0, headBytes).equals(Buffer.from(head)))
    return undefined;
  const values = headBytes - start;
  return {
    _id: ref.id,
    _collection: ref.collection,
    _rev: read.slice(values, values + REV_LENGTH),
    _created: read.slice(values + CREATED_START, values + CREATED_START + TIME_LENGTH),
    _updated: read.slice(values + UPDATED_START, values + UPDATED_START + TIME_LENGTH),
  };
}

/**
 * The own members of the document `ref` with the stored text `text`: the input of {@link composeStoredText}.
 */
export function ownContentOf(text: Buffer, ref: DocumentRef): DocumentContent {
  const end = Buffer.byteLength(headOf(ref)) + VALUES_LENGTH + 1;
  const hasMembers = text[end] === COMMA;
  return { bytes: text.subarray(hasMembers ? end + 1 : end, -1), hasMembers };
}

/** Metadata of a stored text as it states them itself; undefined for any other text. */
export function readOwnMetadata(text: Buffer): DocumentMetadata | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text.toString('utf8'));
  } catch {
    return undefined;
  }
  const { _id: id, _collection: collection } = (value ?? {}) as Record<string, unknown>;
  if (typeof id !== 'string' || typeof collection !== 'string') return undefined;
  return readStoredMetadata(text, { collection, id });
}

function invalid(detail: string): AppError {
  return new AppError('invalid_document', { detail });
}
