import { auditRecordSchema } from '@bundoc/shared/contract/audit';
import {
  auditReceiptSchema,
  keyNameSchema,
  keyStateSchema,
  keyTypeSchema,
  keyVersionSchema,
  rotateAfterDaysSchema,
} from '@bundoc/shared/contract/keys';
import { jwksSchema, tokenInfoSchema } from '@bundoc/shared/contract/tokens';
import { z } from 'zod';
import type { Installation } from '../records/installation.ts';
import type { KeyRecord, KeyVersionRecord } from '../records/key-record.ts';
import { DamagedFile } from './errors.ts';
import { holderSchema, offerSchema, outsideSchema } from './key-snapshot.ts';

/** Bytes; base64 in an archive. */
const isBytes = (value: unknown) => value instanceof Uint8Array;
const bytes = z.codec(z.base64(), z.custom<Uint8Array>(isBytes), {
  decode: (text) => Uint8Array.from(Buffer.from(text, 'base64')),
  encode: (value) => Buffer.from(value).toString('base64'),
});
const time = z.iso.datetime();
const hex = z.string().regex(/^[0-9a-f]*$/);

const installationSchema = z.strictObject({
  createdAt: time,
  chainKeyWrapped: bytes,
  signingSeedWrapped: bytes,
  signingKey: jwksSchema.shape.keys.element,
  keks: z.array(z.strictObject({ id: hex, checkValue: hex })).readonly(),
}) satisfies z.ZodType<Installation>;

const keySchema = z.strictObject({
  id: z.uuid(),
  name: keyNameSchema,
  type: keyTypeSchema,
  state: keyStateSchema,
  version: z.int().positive(),
  revision: z.int().positive(),
  exportable: z.boolean(),
  rotateAfterDays: rotateAfterDaysSchema,
  dueAt: time.nullable(),
  createdAt: time,
  destroyedAt: time.nullable(),
  kekIds: z.array(hex).readonly(),
  idempotency: z.strictObject({ key: hex, request: hex }).nullable(),
  versionDigests: bytes,
  holder: holderSchema.nullable(),
  offer: offerSchema.nullable(),
  intendedAt: time.nullable(),
  outside: outsideSchema.nullable(),
}) satisfies z.ZodType<KeyRecord>;

const versionSchema = z.strictObject({
  keyId: z.uuid(),
  version: z.int().positive(),
  kcv: hex,
  state: keyVersionSchema.shape.state,
  createdAt: time,
  destroyedAt: time.nullable(),
  wrapped: bytes,
}) satisfies z.ZodType<KeyVersionRecord>;

const headSchema = z.strictObject({ format: z.literal(2), id: hex.length(32), created_at: time });
const count = z.int().nonnegative();
const endSchema = z.strictObject({
  /** The last record of the audit chain. */
  audit: auditReceiptSchema,
  records: count,
  keys: count,
  versions: count,
  tokens: count,
});

/** The head of an archive, with its metadata, and its end, with counts of its content. */
export type ArchiveHead = z.infer<typeof headSchema>;
export type ArchiveEnd = z.infer<typeof endSchema>;

/** One line of an archive: its kind, then its content. */
const lineSchema = z.union([
  z.tuple([z.literal('archive'), headSchema]),
  z.tuple([z.literal('installation'), installationSchema]),
  z.tuple([z.literal('record'), z.strictObject(auditRecordSchema.shape)]),
  z.tuple([z.literal('key'), keySchema]),
  z.tuple([z.literal('version'), versionSchema]),
  z.tuple([z.literal('token'), z.strictObject(tokenInfoSchema.shape)]),
  z.tuple([z.literal('end'), endSchema]),
]);
export type ArchiveLine = z.output<typeof lineSchema>;

/**
 * @returns undefined for an entry that does not fit the format: only others than the service can have put
 *   it into the store.
 */
export function encodeLine(line: ArchiveLine): string | undefined {
  const encoded = z.safeEncode(lineSchema, line);
  return encoded.success ? JSON.stringify(encoded.data) : undefined;
}

/** @throws DamagedFile for a line of an unknown form. */
export function decodeLine(text: string): ArchiveLine {
  try {
    return z.decode(lineSchema, JSON.parse(text));
  } catch (error) {
    throw new DamagedFile(
      'the backup has a line that this release does not know: restore it with the release that wrote it',
      { cause: error },
    );
  }
}
