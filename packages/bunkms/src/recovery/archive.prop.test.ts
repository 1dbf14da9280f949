import { createSecretKey, randomBytes } from 'node:crypto';
import type { ByteSource } from '@bundoc/shared/files/file-source';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Vault } from '../vault/vault.ts';
import { LINE_BYTES_MAX, openArchive, sealArchive } from './archive.ts';
import { DamagedFile, MissingKek } from './errors.ts';

const vault = new Vault([createSecretKey(randomBytes(32))]);
const HEAD_BYTES = 109;

async function seal(lines: readonly string[], by = vault): Promise<Buffer> {
  async function* all() {
    yield* lines;
  }
  const pieces: Buffer[] = [];
  for await (const piece of sealArchive(by, all())) pieces.push(piece);
  return Buffer.concat(pieces);
}

function sourceOf(bytes: Buffer): ByteSource {
  return { sizeBytes: bytes.length, read: async (at, count) => Buffer.from(bytes.subarray(at, at + count)) };
}

async function open(bytes: Buffer, by = vault): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of openArchive(by, sourceOf(bytes))) lines.push(line);
  return lines;
}

/** The chunks after the head, each with its length. */
function chunksOf(archive: Buffer): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = HEAD_BYTES; at < archive.length; ) {
    const end = at + 4 + archive.readUInt32BE(at);
    chunks.push(archive.subarray(at, end));
    at = end;
  }
  return chunks;
}

const line = fc.string({ unit: 'grapheme', maxLength: 60 }).filter((text) => !text.includes('\n'));
const longLine = fc
  .tuple(line, fc.integer({ min: 1, max: 150_000 }))
  .map(([text, times]) => `${text}${'x'.repeat(times)}`);
/** Lines of several chunks. */
const longText = fc.array(longLine, { minLength: 4, maxLength: 12 });

describe('an archive', () => {
  it('returns its lines', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.array(line), longText), async (lines) => {
        expect(await open(await seal(lines))).toEqual(lines);
      }),
      { numRuns: 50 },
    );
  });

  it('an archive with any changed bit is refused', async () => {
    const archive = await seal(Array.from({ length: 20 }, (_, number) => `line ${number}`));
    // Every byte, with a different mask each time.
    for (let at = 0; at < archive.length; at++) {
      const changed = Buffer.from(archive);
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8));
      await expect(open(changed), `byte ${at}`).rejects.toThrow(DamagedFile);
    }
  });

  it('an archive that was truncated, extended or has bytes removed is refused', async () => {
    const archive = await seal(Array.from({ length: 30 }, (_, number) => `${number}`.repeat(20_000)));
    expect(chunksOf(archive).length).toBeGreaterThan(2);
    await fc.assert(
      fc.asyncProperty(
        fc.nat(archive.length - 1),
        fc.integer({ min: 1, max: 40 }),
        fc.uint8Array({ minLength: 1, maxLength: 40 }),
        async (at, count, more) => {
          await expect(open(archive.subarray(0, at))).rejects.toThrow(DamagedFile);
          await expect(open(Buffer.concat([archive, more]))).rejects.toThrow(DamagedFile);
          const without = Buffer.concat([archive.subarray(0, at), archive.subarray(at + count)]);
          await expect(open(without)).rejects.toThrow(DamagedFile);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('an archive with chunks left out, repeated, moved, or from another archive is refused', async () => {
    await fc.assert(
      fc.asyncProperty(longText, fc.infiniteStream(fc.nat()), async (lines, random) => {
        const [archive, other] = [await seal(lines), await seal(lines)];
        const head = archive.subarray(0, HEAD_BYTES);
        const chunks = chunksOf(archive);
        const pick = (count: number) => (random.next().value ?? 0) % count;
        const [one, another] = [pick(chunks.length), pick(chunks.length)];
        const swapped = chunks.with(one, chunks[another]!).with(another, chunks[one]!);
        const variants = [
          chunks.toSpliced(one, 1),
          chunks.toSpliced(one, 0, chunks[another]!),
          chunks.slice(0, one),
          ...(one === another ? [] : [swapped]),
          chunks.with(one, chunksOf(other)[one]!),
          chunksOf(other),
        ];
        for (const variant of variants)
          await expect(open(Buffer.concat([head, ...variant]))).rejects.toThrow(DamagedFile);
      }),
      { numRuns: 25 },
    );
  });

  it('made under another KEK is distinguished from a damaged one', async () => {
    const other = new Vault([createSecretKey(randomBytes(32))]);
    const archive = await seal(['a'], other);
    await expect(open(archive)).rejects.toThrow(MissingKek);
    await expect(open(archive)).rejects.toThrow(
      `made under the KEK ${other.currentKekId}, which the ring lacks`,
    );
    expect(await open(archive, other)).toEqual(['a']);
  });

  it('opens with an older KEK of the ring', async () => {
    const older = createSecretKey(randomBytes(32));
    const archive = await seal(['a'], new Vault([older]));
    expect(await open(archive, new Vault([createSecretKey(randomBytes(32)), older]))).toEqual(['a']);
  });

  it('reveals nothing of its content', async () => {
    const archive = await seal(['a-name-to-look-for']);
    expect(archive.includes('a-name-to-look-for')).toBe(false);
  });

  it('accepts no line that could not be read again', async () => {
    await expect(seal(['x'.repeat(LINE_BYTES_MAX)])).rejects.toThrow('too long');
    const longest = 'x'.repeat(LINE_BYTES_MAX - 1);
    expect(await open(await seal(['y'.repeat(200_000), longest, longest]))).toHaveLength(3);
  });

  it('an archive with a chunk length beyond the limit is refused without reading the chunk', async () => {
    const archive = await seal(['a']);
    const huge = Buffer.concat([archive.subarray(0, HEAD_BYTES), Buffer.alloc(4, 0xff)]);
    const source = sourceOf(huge);
    const reads: number[] = [];
    const counting: ByteSource = {
      sizeBytes: 2 ** 40,
      read: (at, bytes) => {
        reads.push(bytes);
        return source.read(at, bytes);
      },
    };
    await expect(openArchive(vault, counting).next()).rejects.toThrow(DamagedFile);
    expect(Math.max(...reads)).toBe(HEAD_BYTES);
  });
});
