import { hash, type KeyObject, randomBytes } from 'node:crypto';
import { KEY_BYTES, OpenError, SEAL_OVERHEAD_BYTES, takeKey } from '@bundoc/shared/crypto/aead';
import { CHUNK_BYTES, LENGTH_BYTES, SealedStream } from '@bundoc/shared/crypto/sealed-stream';
import type { ByteSource } from '@bundoc/shared/files/file-source';
import { kekIdOf, WRAPPED_KEY_BYTES } from '../records/wrapped-key.ts';
import type { Vault } from '../vault/vault.ts';
import { DamagedFile, MissingKek } from './errors.ts';

/**
 * The sealing of an archive (docs/formats/backup.md). An unencrypted head contains the key of the archive,
 * wrapped with the KEK. The text follows in sealed chunks, each bound to its place. The last chunk is marked,
 * so that a truncated archive does not open.
 */

const MAGIC = Buffer.from('BUNKMSB1', 'latin1');
const WRAPPED_AT = MAGIC.length;
const SUM_AT = WRAPPED_AT + WRAPPED_KEY_BYTES;
const SUM_BYTES = 32;
const HEAD_BYTES = SUM_AT + SUM_BYTES;
const FORMAT = 'bunkms/backup/v1';
/** Maximum bytes of a line. The entries of a store are far smaller. */
export const LINE_BYTES_MAX = 1_048_576;
const SEALED_BYTES_MAX = CHUNK_BYTES + LINE_BYTES_MAX + SEAL_OVERHEAD_BYTES;
const NEWLINE = 0x0a;

/** Seals lines, which must not contain line feeds. @returns the archive in pieces. */
export async function* sealArchive(vault: Vault, lines: AsyncIterable<string>): AsyncGenerator<Buffer> {
  const rawKey = randomBytes(KEY_BYTES);
  const wrapped = vault.wrapSecret(rawKey, 'backup-key');
  const key = takeKey(rawKey);
  const head = Buffer.concat([MAGIC, wrapped]);
  yield Buffer.concat([head, hash('sha256', head, 'buffer')]);
  const stream = new SealedStream(key, FORMAT);
  let [text, bytes] = [[] as Buffer[], 0];
  for await (const line of lines) {
    const encoded = Buffer.from(`${line}\n`, 'utf8');
    if (encoded.length > LINE_BYTES_MAX) throw new Error('a line is too long for an archive');
    text.push(encoded);
    bytes += encoded.length;
    if (bytes < CHUNK_BYTES) continue;
    yield stream.seal(Buffer.concat(text, bytes), false);
    [text, bytes] = [[], 0];
  }
  yield stream.seal(Buffer.concat(text, bytes), true);
}

/**
 * Opens an archive. Every yielded line is authentic. Only at the end is it known whether the archive is
 * complete.
 *
 * @param onProgress called with the number of bytes read.
 * @throws DamagedFile for anything but a complete, authentic archive; MissingKek.
 */
export async function* openArchive(
  vault: Vault,
  source: ByteSource,
  onProgress: (bytes: number) => void = () => undefined,
): AsyncGenerator<string> {
  const stream = new SealedStream(await readKey(vault, source), FORMAT);
  let at = HEAD_BYTES;
  for (let isLast = false; !isLast; ) {
    const head = await source.read(at, LENGTH_BYTES);
    const length = head.length === LENGTH_BYTES ? head.readUInt32BE() : 0;
    const end = at + LENGTH_BYTES + length;
    if (length < SEAL_OVERHEAD_BYTES || length > SEALED_BYTES_MAX || end > source.sizeBytes)
      throw new DamagedFile('the backup is cut short or damaged');
    isLast = end === source.sizeBytes;
    const sealed = await source.read(at + LENGTH_BYTES, length);
    yield* linesOf(openChunk(stream, sealed, isLast));
    at = end;
    onProgress(at);
  }
}

async function readKey(vault: Vault, source: ByteSource): Promise<KeyObject> {
  const head = await source.read(0, HEAD_BYTES);
  if (head.length < HEAD_BYTES || !head.subarray(0, WRAPPED_AT).equals(MAGIC))
    throw new DamagedFile('it is not a backup of a known format');
  // Not for security: it distinguishes damage from another KEK.
  if (!hash('sha256', head.subarray(0, SUM_AT), 'buffer').equals(head.subarray(SUM_AT)))
    throw new DamagedFile('the head of the backup is damaged');
  const wrapped = head.subarray(WRAPPED_AT, SUM_AT);
  const kekId = kekIdOf(wrapped);
  if (kekId === undefined) throw new DamagedFile('the backup is damaged');
  if (vault.checkValueOf(kekId) === undefined) throw new MissingKek('the backup', kekId);
  try {
    return takeKey(vault.unwrapSecret(wrapped, 'backup-key'));
  } catch (error) {
    if (error instanceof OpenError) throw new DamagedFile('the backup is damaged', { cause: error });
    throw error;
  }
}

function openChunk(stream: SealedStream, sealed: Buffer, isLast: boolean): Buffer {
  try {
    return stream.open(sealed, isLast);
  } catch (error) {
    if (error instanceof OpenError)
      throw new DamagedFile('the backup is cut short or damaged', { cause: error });
    throw error;
  }
}

function* linesOf(text: Buffer): Generator<string> {
  for (let at = 0; at < text.length; ) {
    const end = text.indexOf(NEWLINE, at);
    if (end === -1) throw new DamagedFile('a line of the backup has no end');
    yield text.toString('utf8', at, end);
    at = end + 1;
  }
}
