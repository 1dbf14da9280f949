import { createSecretKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Log } from '../src/engine/files/log/log.ts';
import { partKeysOf } from '../src/engine/files/log/part-seal.ts';
import { openParts, PartReader, partsBehind } from '../src/engine/files/log/parts.ts';
import { scanLog } from '../src/engine/files/log/scan.ts';
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
 * Two segments of two handles, the second of which is gone; and what of the first handle was carried out of
 * the first segment. Never regenerated.
 */
describe('the golden files of the log, version 1', () => {
  const dek = createSecretKey(Buffer.from(dekHex, 'hex'));
  const keys = partKeysOf(new Map([[1, dek]]));
  const segments = golden('log-v1.golden.bin');

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

  it('open to what was written, with births in the clear', async () => {
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
    for await (const birth of log.births())
      expect(birth).toEqual({
        handle: A,
        project: 'golden',
        projectFile: Buffer.from('{"format":"bundoc/project/1"}\n'),
      });
    await using reader = log.reader();
    expect(await textsOf(reader, log.newest(A), [])).toEqual(OF_A);
  });

  it('open to the same from the second segment and the carried file alone', async () => {
    const disk = newDisk();
    const { live, index } = await scanLog(disk, '/log', STORAGE_ID, SEGMENT_BYTES);
    const second = live.filter(({ number }) => number === 2).map((one) => [2, one] as const);
    await using reader = new PartReader(disk, new Map(second), 2);
    expect(await textsOf(reader, index.newest(A), [golden('carried-v1.golden.bin')])).toEqual(OF_A);
  });

  it('are read by the byte tables alone', () => {
    const files = [segments.subarray(0, SEGMENT_BYTES), segments.subarray(SEGMENT_BYTES)];
    const parts = readLogByHand(files, STORAGE_ID, () => ({ dek, project: 'golden' }));
    const texts = parts.filter(({ handle }) => handle === A).map(({ plaintext }) => plaintext.toString());
    expect(texts.join('|')).toBe(
      OF_A.join('|').replace(/x{9000}/, 'x'.repeat(9_000).replaceAll(/x{2048}/g, '$&|')),
    );
    expect(parts.map(({ kind }) => kind)).toEqual([3, 3, 1, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 4, 1]);
  });
});
