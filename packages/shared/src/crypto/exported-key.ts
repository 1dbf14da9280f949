import type { KeyObject } from 'node:crypto';
import { type ExportedKey, exportedKeySchema } from '../contract/keys.ts';
import { scanJson } from '../json/scan.ts';
import { takeKey } from './aead.ts';
import { KEY_TEXT_BYTES, readKeyText, writeKeyText } from './key-text.ts';

/** The members of an export's answer except the key itself. */
export type ExportedKeyFacts = Omit<ExportedKey, 'key_material_b64'>;

const MATERIAL = 'key_material_b64';
const HEAD = Buffer.from(`{"${MATERIAL}":"`);
const NO_MATERIAL = 'A'.repeat(KEY_TEXT_BYTES);

/**
 * The body of an export's answer, written as bytes, so that the key never becomes a string.
 *
 * @returns a new buffer. The caller wipes it and `dek`.
 */
export function encodeExportedKey(facts: ExportedKeyFacts, dek: Uint8Array): Buffer {
  const rest = Buffer.from(`",${JSON.stringify(facts).slice(1)}`);
  const body = Buffer.alloc(HEAD.length + KEY_TEXT_BYTES + rest.length);
  HEAD.copy(body);
  writeKeyText(dek, body.subarray(HEAD.length));
  rest.copy(body, HEAD.length + KEY_TEXT_BYTES);
  return body;
}

/**
 * Reads the body of an export's answer, with its members in any order, and wipes it. The key is cut out of
 * the bytes before the rest becomes a string.
 *
 * @throws Error when it is not such an answer; the message quotes nothing of it.
 */
export function decodeExportedKey(body: Buffer): {
  readonly facts: ExportedKeyFacts;
  readonly dek: KeyObject;
} {
  let dek: Buffer | undefined;
  try {
    const text = materialIn(body);
    dek = text && readKeyText(text);
    if (text === undefined || dek === undefined) throw new Error('the answer holds no key');
    text.write(NO_MATERIAL, 'latin1');
    const parsed = exportedKeySchema.safeParse(JSON.parse(body.toString('utf8')));
    if (!parsed.success) throw new Error('the answer is not that of an export');
    const { [MATERIAL]: _, ...facts } = parsed.data;
    return { facts, dek: takeKey(dek) };
  } finally {
    dek?.fill(0);
    body.fill(0);
  }
}

/**
 * The part of the body that is the text of the key. Undefined when there is none, more than one, or one with
 * escapes.
 */
function materialIn(body: Buffer): Buffer | undefined {
  const { members, duplicateAt } = scanJson(body);
  const member = members.find(({ name }) => name === MATERIAL);
  if (member === undefined || duplicateAt !== undefined) return undefined;
  const colon = body.indexOf(':', member.nameStart + MATERIAL.length + 2);
  const start = body.indexOf('"', colon) + 1;
  const end = start + KEY_TEXT_BYTES;
  return colon !== -1 && start !== 0 && end < member.end && body[end] === 0x22
    ? body.subarray(start, end)
    : undefined;
}
