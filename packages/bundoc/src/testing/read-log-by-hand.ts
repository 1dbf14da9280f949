import { createDecipheriv, hkdfSync, type KeyObject } from 'node:crypto';

/** What a part holds, as a reader with the key finds it. */
export interface PartByHand {
  readonly handle: string;
  readonly kind: number;
  readonly chunks: number;
  readonly plaintext: Buffer;
}

/**
 * Reads a log by docs/formats/log.md and nothing of the log's own code: every frame that counts, in order,
 * each part opened.
 *
 * @param keyOf the DEK of a handle and a version, and the name of its project.
 */
export function readLogByHand(
  files: Iterable<Buffer>,
  storageId: Buffer,
  keyOf: (handle: string, version: number) => { readonly dek: KeyObject; readonly project: string },
): PartByHand[] {
  const segments = [...files].filter((file) => file.toString('latin1', 0, 8) === 'BUNDOCL3');
  const numberOf = (file: Buffer) => Number(file.readBigUInt64BE(24));
  const idOf = (file: Buffer) => file.subarray(32, 48);
  segments.sort((a, b) => numberOf(a) - numberOf(b));
  const newest = segments.at(-1);
  if (newest === undefined) return [];
  const firstLive = Number(newest.readBigUInt64BE(48));
  const chain: { file: Buffer; lastFrame: number | undefined }[] = [];
  for (let file: Buffer | undefined = newest, lastFrame: number | undefined; file !== undefined; ) {
    chain.unshift({ file, lastFrame });
    const cutId: Buffer = file.subarray(64, 80);
    if (Number(file.readBigUInt64BE(56)) < firstLive) break;
    lastFrame = file.readUInt32BE(80);
    file = segments.find((one) => idOf(one).equals(cutId));
  }
  const parts: PartByHand[] = [];
  for (const { file, lastFrame } of chain) {
    let block = 1 + Math.ceil((file.readUInt32BE(100) + file.readUInt32BE(132)) / 4_096);
    while (block <= (lastFrame ?? Number.POSITIVE_INFINITY) && isFrame(file, block)) {
      const start = block * 4_096;
      const count = file.readUInt16BE(start + 56);
      let body = start + 60 + count * 64 + file.readUInt16BE(start + 58) * 24 + 16;
      for (let at = 0; at < count; at++) {
        const entry = file.subarray(start + 60 + at * 64, start + 124 + at * 64);
        const bytes = entry.readUInt32BE(16);
        parts.push(openByHand(file, block, entry, file.subarray(body, body + bytes), storageId, keyOf));
        body += bytes;
      }
      block += Math.ceil(file.readUInt32BE(start + 4) / 4_096);
    }
  }
  return parts;
}

function isFrame(file: Buffer, block: number): boolean {
  const start = block * 4_096;
  return (
    start + 4_096 <= file.length &&
    file.toString('latin1', start, start + 4) === 'BLF1' &&
    file.subarray(start + 24, start + 40).equals(file.subarray(32, 48)) &&
    file.readUInt32BE(start + 8) === block
  );
}

function openByHand(
  file: Buffer,
  frame: number,
  entry: Buffer,
  body: Buffer,
  storageId: Buffer,
  keyOf: Parameters<typeof readLogByHand>[2],
): PartByHand {
  const handle = entry.toString('hex', 0, 8);
  const kind = entry.readUInt8(8);
  const chunks = entry.readUInt16BE(10);
  if (kind === 4) return { handle, kind, chunks, plaintext: Buffer.alloc(0) };
  const { dek, project } = keyOf(handle, entry.readUInt32BE(12));
  const segmentId = file.subarray(32, 48);
  const salt = Buffer.concat([segmentId, entry.subarray(0, 8)]);
  const key = Buffer.from(hkdfSync('sha256', dek, salt, 'bundoc/log/v1', 32));
  const nonce = Buffer.alloc(12);
  nonce.writeUInt32BE(frame, 8);
  const number = nonce.subarray(8);
  const decipher = createDecipheriv('aes-256-gcm', key, nonce);
  const aad = [
    Buffer.from(`bundoc/log/v1\0${project}\0`),
    storageId,
    segmentId,
    entry.subarray(0, 48),
    number,
  ];
  decipher.setAAD(Buffer.concat(aad)).setAuthTag(entry.subarray(48, 64));
  const plaintext = Buffer.concat([decipher.update(body), decipher.final()]);
  return { handle, kind, chunks, plaintext };
}
