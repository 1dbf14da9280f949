import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  type ArchiveRecord,
  decodeObject,
  ObjectBuilder,
  type ObjectHead,
  objectKey,
} from '../src/engine/files/archive/object.ts';

const golden = readFileSync(new URL('golden/archive-v1.golden.bin', import.meta.url));

const HEAD: ObjectHead = {
  storageId: Buffer.from('00112233445566778899aabbccddeeff', 'hex'),
  epoch: '0123456789abcdef0123456789abcdef',
  n: 258,
  before: { epoch: 'fedcba9876543210fedcba9876543210', n: 257, hash: Buffer.alloc(32, 0xb7) },
  timeMs: Date.UTC(2026, 11, 3, 9, 0, 0, 7),
  end: { segment: 12, frame: 34 },
  log: { segment: 12, frame: 56 },
  round: { endedIn: 258, first: 250, segment: 11 },
  takenOverMs: Date.UTC(2026, 10, 1),
};
/** One of each kind. */
const RECORDS: readonly ArchiveRecord[] = [
  { kind: 'segment', number: 12, id: Buffer.alloc(16, 0x12), header: Buffer.from('header and index') },
  { kind: 'frame', block: 34, bytes: Buffer.from('a frame') },
  { kind: 'base', project: 'acme', handle: '00000000000000a1', inRound: true },
  { kind: 'file', name: 'carried/7', offset: 0, bytes: Buffer.from('carried parts') },
  { kind: 'file', name: 'catalog', offset: 0, bytes: Buffer.from('the first piece, ') },
  { kind: 'file', name: 'catalog', offset: 17, bytes: Buffer.from('the second one') },
  { kind: 'file', name: `docs/${'d0'.repeat(16)}`, offset: 0, bytes: Buffer.from('a document') },
  { kind: 'file', name: 'project.json', offset: 0, bytes: Buffer.from('{"project":"acme"}') },
  { kind: 'end' },
  { kind: 'base', project: 'deleted', handle: undefined, inRound: false },
  { kind: 'end' },
  {
    kind: 'small files',
    project: 'globex',
    files: [
      { name: 'project.json', bytes: Buffer.from('{"project":"globex"}') },
      { name: 'expires-1', bytes: Buffer.alloc(0) },
    ],
  },
  { kind: 'gone', project: 'initech' },
  { kind: 'round ends', bases: 2 },
  { kind: 'storage file', bytes: Buffer.from('{"format":2}') },
];

/** An object with each kind of record. Never regenerated. */
describe('the golden file of the archive, version 1', () => {
  it('is read as what was written, and written as it is', () => {
    const decoded = decodeObject(golden, HEAD.storageId, HEAD);
    expect(decoded.head).toEqual(HEAD);
    expect([...decoded.records()]).toEqual(RECORDS);
    const builder = new ObjectBuilder();
    for (const record of RECORDS) builder.add(record);
    expect(builder.finish(HEAD).bytes.equals(golden)).toBe(true);
  });

  it('has its fields where the byte table says', () => {
    expect(golden.toString('latin1', 0, 8)).toBe('BUNDOCA1');
    expect(golden.readBigUInt64BE(40)).toBe(258n);
    expect(golden.readUIntBE(104, 6)).toBe(HEAD.timeMs);
    expect(golden.readBigUInt64BE(110)).toBe(12n);
    expect(golden.readUInt32BE(130)).toBe(56);
    expect(golden.readBigUInt64BE(134)).toBe(258n);
    expect(golden.readUIntBE(158, 6)).toBe(HEAD.takenOverMs);
    expect(golden.readUInt32BE(164)).toBe(golden.length - 168 - 32);
  });

  it('has a name in the order of its number', () => {
    expect(objectKey(HEAD.storageId, HEAD)).toBe(
      '00112233445566778899aabbccddeeff/000000000258-0123456789abcdef0123456789abcdef',
    );
  });
});
