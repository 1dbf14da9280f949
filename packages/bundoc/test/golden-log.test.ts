import { createSecretKey, hash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Log } from '../src/engine/files/log/log.ts';
import { openParts, PartReader, partsBehind } from '../src/engine/files/log/parts.ts';
import { scanLog } from '../src/engine/files/log/scan.ts';
import { partKeysOf } from '../src/testing/part-keys.ts';
import { readLogByHand } from '../src/testing/read-log-by-hand.ts';
import { SimulatedDisk } from '../src/testing/simulated-disk.ts';

const golden = (name: string) => readFileSync(new URL(`golden/${name}`, import.meta.url));
const { dekHex } = JSON.parse(golden('expected-v1.golden.json').toString()) as { dekHex: string };

const SEGMENT_BYTES = 49_152;
const STORAGE_ID = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
const A = '00000000000000a1';
const FILLERS = Array.from({ length: 5 }, (_, at) => `filler ${at}`);
const OF_A = ['first', 'second', 'x'.repeat(9_000), ...FILLERS, 'last'];

/**
 * Two segments of two handles, of which the second one is gone, and the carried file of the first handle from
 * the first segment. Never regenerated.
 */
describe('the golden files of log format 3', () => {
  const dek = createSecretKey(Buffer.from(dekHex, 'hex'));
  const keys = partKeysOf(new Map([[1, dek]]));
  const segments = golden('log-v3.golden.bin');

  function newDisk(): SimulatedDisk {
    const disk = new SimulatedDisk('/', '/log');
    disk.tamper('/log/00000000', segments.subarray(0, SEGMENT_BYTES));
    disk.tamper('/log/00000001', segments.subarray(SEGMENT_BYTES));
    return disk;
  }

  async function textsOf(
    reader: PartReader,
    newest: Parameters<typeof partsBehind>[1]['newest'],
    carried: Buffer[],
  ) {
    const texts: string[] = [];
    const parts = partsBehind(reader, { handle: A, newest, covered: undefined, carried });
    for await (const { plaintext } of openParts('golden', STORAGE_ID, keys, parts))
      texts.push(plaintext.toString());
    return texts;
  }

  it('open to what was written', async () => {
    const limits = {
      segmentBytes: SEGMENT_BYTES,
      segmentsMin: 4,
      segmentsMax: 8,
      frameBytes: 8_192,
      chunkBytes: 2_048,
    };
    const log = await Log.open({
      disk: newDisk(),
      directory: '/log',
      storageId: STORAGE_ID,
      limits,
      mustExist: true,
    });
    expect([...log.handles]).toEqual([A]);
    await using reader = log.reader();
    expect(await textsOf(reader, log.newest(A), [])).toEqual(OF_A);
  });

  it('open to the same from only the second segment and the carried file', async () => {
    const disk = newDisk();
    const { live, index } = await scanLog(disk, '/log', STORAGE_ID, SEGMENT_BYTES);
    const second = live.filter(({ number }) => number === 2).map((one) => [2, one] as const);
    await using reader = new PartReader(disk, new Map(second));
    expect(await textsOf(reader, index.newest(A), [golden('carried-v2.golden.bin')])).toEqual(OF_A);
  });

  it('carry parts that open in another data folder, with the storage id of the carried file', async () => {
    await using reader = new PartReader(newDisk(), new Map());
    const covered = { segment: 40, frame: 2, tag: Buffer.alloc(16) };
    const wanted = { handle: A, newest: undefined, carried: [golden('carried-v2.golden.bin')] };
    const texts: string[] = [];
    const parts = partsBehind(reader, { ...wanted, covered: undefined });
    for await (const { plaintext } of openParts('golden', Buffer.alloc(16, 0xee), keys, parts))
      texts.push(plaintext.toString());
    expect(texts.length).toBeGreaterThan(1);
    expect(texts).toEqual(OF_A.slice(0, texts.length));
    // A snapshot that covers all of them names a place that only the other log knows.
    await expect(partsBehind(reader, { ...wanted, covered }).next()).rejects.toThrow('do not follow');
  });

  it('include handles that an emptied log remembers, as its byte table alone can decode them', async () => {
    const bytes = golden('log-emptied-v3.golden.bin');
    expect([bytes.toString('latin1', 0, 8), bytes.readUInt32BE(100), bytes.readUInt32BE(132)]).toEqual([
      'BUNDOCL3',
      0,
      34,
    ]);
    const entry = bytes.subarray(4_096, 4_130);
    expect(hash('sha256', entry, 'buffer').subarray(0, 16)).toEqual(bytes.subarray(136, 152));
    const last = { segment: entry.readUIntBE(8, 6), frame: entry.readUInt32BE(14), tag: entry.subarray(18) };
    const disk = new SimulatedDisk('/', '/log');
    disk.tamper('/log/00000000', Buffer.concat([bytes, Buffer.alloc(SEGMENT_BYTES)]));
    const { index } = await scanLog(disk, '/log', bytes.subarray(8, 24), SEGMENT_BYTES);
    expect(index.newest(entry.toString('hex', 0, 8))).toEqual(last);
  });

  it.each([1, 2])('are refused by their name in format %i', async (format) => {
    const disk = new SimulatedDisk('/', '/log');
    const former = Buffer.from(segments.subarray(0, SEGMENT_BYTES));
    for (const copy of [0, 2_048]) former.write(`BUNDOCL${format}`, copy, 'latin1');
    disk.tamper('/log/00000000', former);
    await expect(scanLog(disk, '/log', STORAGE_ID, SEGMENT_BYTES)).rejects.toThrow(
      'is a log of an earlier release',
    );
  });

  it('include a carried file that its byte table alone can decode', () => {
    const file = golden('carried-v2.golden.bin');
    expect(file.toString('latin1', 0, 8)).toBe('BUNDOCP2');
    expect(file.subarray(8, 24)).toEqual(STORAGE_ID);
    expect(file.toString('hex', 24, 32)).toBe(A);
    expect(file.readBigUInt64BE(32)).toBe(1n);
    expect(file.subarray(40, 56)).toEqual(segments.subarray(32, 48));
    let [at, last] = [80, Buffer.alloc(0)];
    const frames: number[] = [];
    for (let left = file.readUInt32BE(76); left > 0; left--) {
      const entry = file.subarray(at + 4, at + 68);
      frames.push(file.readUInt32BE(at));
      expect(entry.toString('hex', 0, 8)).toBe(A);
      last = entry.subarray(48, 64);
      at += 68 + entry.readUInt32BE(16);
    }
    expect(at).toBe(file.length - 16);
    expect(file.readUInt32BE(56)).toBe(frames.at(-1));
    expect(file.subarray(60, 76)).toEqual(last);
    expect(file.subarray(at)).toEqual(hash('sha256', file.subarray(0, at), 'buffer').subarray(0, 16));
  });

  it('can be decoded with the byte tables alone', () => {
    const files = [segments.subarray(0, SEGMENT_BYTES), segments.subarray(SEGMENT_BYTES)];
    const parts = readLogByHand(files, STORAGE_ID, () => ({ dek, project: 'golden' }));
    const texts = parts.filter(({ handle }) => handle === A).map(({ plaintext }) => plaintext.toString());
    expect(texts.join('|')).toBe(
      OF_A.join('|').replace(/x{9000}/, 'x'.repeat(9_000).replaceAll(/x{2048}/g, '$&|')),
    );
    expect(parts.map(({ kind }) => kind)).toEqual([1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 4, 1]);
  });
});
