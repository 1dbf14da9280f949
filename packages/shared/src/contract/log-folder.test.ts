import { hash, randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  decodeSettled,
  encodeSettled,
  HEADER_BLOCK_BYTES,
  HEADER_COPIES,
  HEADER_COPY_BYTES,
  SETTLED_BYTES,
  type SegmentUse,
  settledState,
} from './log-folder.ts';

/** The first block of a segment, with the given uses in its header copies. */
function blockOf(...uses: readonly (SegmentUse | undefined)[]): Buffer {
  const block = Buffer.alloc(HEADER_BLOCK_BYTES);
  for (const [at, start] of HEADER_COPIES.entries()) {
    const use = uses[Math.min(at, uses.length - 1)];
    if (use === undefined) continue;
    const end = start + HEADER_COPY_BYTES;
    block.write('BUNDOCL2', start, 'latin1');
    block.writeBigUInt64BE(BigInt(use.number), start + 24);
    use.id.copy(block, start + 32);
    hash('sha256', block.subarray(start, end), 'buffer').copy(block, end, 0, 16);
  }
  return block;
}

const use = (number: number): SegmentUse => ({ number, id: randomBytes(16) });

function stateOf(files: Readonly<Record<string, Buffer>> | undefined): ReturnType<typeof settledState> {
  return settledState({
    list: () => files && Object.keys(files),
    readStart: (name, bytes) => files?.[name]?.subarray(0, bytes),
  });
}

describe('the state of a log folder', () => {
  const [older, newest] = [use(6), use(7)];
  const segments = {
    '00000000': blockOf(newest),
    '00000001': blockOf(older),
    '00000002': Buffer.alloc(HEADER_BLOCK_BYTES),
    stuck: Buffer.alloc(0),
  };
  const settled = encodeSettled(newest);

  it('is settled when the marker names the newest segment', () => {
    expect(stateOf({ ...segments, settled })).toBe('settled');
  });

  it('is `no log` without a folder or without segments', () => {
    expect(stateOf(undefined)).toBe('no log');
    expect(stateOf({ settled })).toBe('no log');
  });

  it('is unsettled without a marker, and with one for an older segment or for another use of the number', () => {
    expect(stateOf(segments)).toBe('unsettled');
    expect(stateOf({ ...segments, settled: encodeSettled(older) })).toBe('unsettled');
    expect(stateOf({ ...segments, settled: encodeSettled({ ...use(7) }) })).toBe('unsettled');
  });

  it('is unsettled as soon as one copy of a newer header is complete', () => {
    for (const uses of [
      [use(8), older],
      [older, use(8)],
      [use(8), undefined],
      [undefined, use(8)],
    ])
      expect(stateOf({ ...segments, '00000001': blockOf(...uses), settled })).toBe('unsettled');
  });

  it('is unsettled when both copies of the newest header are damaged, and settled when one is', () => {
    const damaged = Buffer.from(segments['00000000']);
    damaged.writeUInt8(damaged.readUInt8(40) ^ 1, 40);
    expect(stateOf({ ...segments, '00000000': damaged, settled })).toBe('settled');
    damaged.writeUInt8(damaged.readUInt8(2_100) ^ 1, 2_100);
    expect(stateOf({ ...segments, '00000000': damaged, settled })).toBe('unsettled');
    expect(stateOf({ '00000002': segments['00000002'], settled })).toBe('unsettled');
  });

  it('is unsettled when a segment vanishes while it is read', () => {
    expect(
      settledState({
        list: () => ['00000000', '00000001'],
        readStart: (name) => ({ '00000000': segments['00000000'], settled })[name],
      }),
    ).toBe('unsettled');
  });

  it('is unsettled with any bit of the marker changed, and with a marker that is too short or too long', () => {
    for (let bit = 0; bit < SETTLED_BYTES * 8; bit++) {
      const changed = Buffer.from(settled);
      changed.writeUInt8(changed.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      expect(stateOf({ ...segments, settled: changed })).toBe('unsettled');
    }
    for (const wrong of [settled.subarray(0, -1), Buffer.concat([settled, Buffer.alloc(1)])]) {
      expect(decodeSettled(wrong)).toBeUndefined();
      expect(stateOf({ ...segments, settled: wrong })).toBe('unsettled');
    }
  });
});
