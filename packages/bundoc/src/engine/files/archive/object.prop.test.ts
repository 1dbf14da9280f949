import { hash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ArchiveDamaged,
  type ArchiveRecord,
  decodeHead,
  decodeObject,
  HEAD_BYTES,
  ObjectBuilder,
  type ObjectHead,
  SMALL_FILES,
} from './object.ts';

const HASH_BYTES = 32;
/** Offset of the length of the records. */
const LENGTH = HEAD_BYTES - 4;

const hex = (digits: number) =>
  fc
    .uint8Array({ minLength: digits / 2, maxLength: digits / 2 })
    .map((bytes) => Buffer.from(bytes).toString('hex'));
const bytes = (least: number, most: number) =>
  fc.uint8Array({ minLength: least, maxLength: most }).map((array) => Buffer.from(array));
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const number = fc.maxSafeNat();
const counted = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const timeMs = fc.integer({ min: 0, max: 2 ** 48 - 1 });
const project = fc.stringMatching(/^[a-z0-9][a-z0-9-]{0,30}[a-z0-9]$/);
const handle = hex(16).filter((text) => !/^0+$/.test(text));
const fileName = fc.oneof(
  fc.constantFrom<string>(...SMALL_FILES, 'catalog'),
  hex(32).map((digits) => `docs/${digits}`),
  fc.integer({ min: 1, max: 1_000_000 }).map((n) => `carried/${n}`),
);

const record: fc.Arbitrary<ArchiveRecord> = fc.oneof(
  fc.record({ kind: fc.constant('segment'), number, id: bytes(16, 16), header: bytes(0, 100) }),
  fc.record({ kind: fc.constant('frame'), block: u32, bytes: bytes(0, 100) }),
  fc.record({
    kind: fc.constant('base'),
    project,
    handle: fc.option(handle, { nil: undefined }),
    inRound: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant('small files'),
    project,
    files: fc.array(fc.record({ name: fc.constantFrom(...SMALL_FILES), bytes: bytes(0, 50) }), {
      maxLength: 3,
    }),
  }),
  fc.record({ kind: fc.constant('file'), name: fileName, offset: number, bytes: bytes(0, 100) }),
  fc.record({ kind: fc.constant('end') }),
  fc.record({ kind: fc.constant('gone'), project }),
  fc.record({ kind: fc.constant('round ends'), bases: u32 }),
  fc.record({ kind: fc.constant('storage file'), bytes: bytes(0, 100) }),
);

const anyHead: fc.Arbitrary<ObjectHead> = fc.record({
  storageId: bytes(16, 16),
  epoch: hex(32),
  n: counted,
  before: fc.option(fc.record({ epoch: hex(32), n: counted, hash: bytes(32, 32) }), { nil: undefined }),
  timeMs,
  end: fc.option(fc.record({ segment: counted, frame: u32 }), { nil: undefined }),
  log: fc.record({ segment: number, frame: u32 }),
  round: fc.option(fc.record({ endedIn: counted, first: number, segment: number }), { nil: undefined }),
  takenOverMs: timeMs,
});

/** The number before is that of the object before. */
const numbered = (of: ObjectHead): ObjectHead =>
  of.before === undefined || of.n === 1
    ? { ...of, before: undefined }
    : { ...of, before: { ...of.before, n: of.n - 1 } };

const head = anyHead.map(numbered);

function encode(of: ObjectHead, records: readonly ArchiveRecord[]): Buffer {
  const builder = new ObjectBuilder();
  for (const one of records) builder.add(one);
  return builder.finish(of).bytes;
}

/** The hash and the length are right again, as a hostile keeper can make them. */
function completed(object: Buffer): Buffer {
  if (object.length < HEAD_BYTES + HASH_BYTES) return object;
  const end = object.length - HASH_BYTES;
  object.writeUInt32BE(end - HEAD_BYTES, LENGTH);
  hash('sha256', object.subarray(0, end), 'buffer').copy(object, end);
  return object;
}

/** Reads everything that a restore would. @returns the records; undefined for a damaged object. */
function readAll(object: Buffer, of: ObjectHead): ArchiveRecord[] | undefined {
  try {
    decodeHead(object, of.storageId, of);
    return [...decodeObject(object, of.storageId, of).records()];
  } catch (error) {
    if (error instanceof ArchiveDamaged) return undefined;
    throw error;
  }
}

/** No name leads out of the folder of its project. */
function requireInside(records: readonly ArchiveRecord[]): void {
  for (const one of records) {
    const names =
      one.kind === 'file'
        ? [one.name]
        : one.kind === 'small files'
          ? [one.project, ...one.files.map(({ name }) => name)]
          : 'project' in one
            ? [one.project]
            : [];
    for (const name of names) expect(name).not.toMatch(/\.\.|^\/|\\|\0/);
  }
}

const change = fc.record({ at: fc.nat(), to: fc.integer({ min: 0, max: 255 }) });

describe('an object of the archive', () => {
  it('is read as it was written', () => {
    fc.assert(
      fc.property(head, fc.array(record, { maxLength: 8 }), (of, records) => {
        const object = encode(of, records);
        const decoded = decodeObject(object, of.storageId, of);
        expect(decoded.head).toEqual(of);
        expect(decoded.bytes).toBe(object.length);
        expect([...decoded.records()]).toEqual(records);
        expect(decodeHead(object.subarray(0, HEAD_BYTES), of.storageId, of)).toEqual(of);
      }),
    );
  });

  it('that is another one than asked for is refused', () => {
    fc.assert(
      fc.property(head, head, (of, other) => {
        fc.pre(!of.storageId.equals(other.storageId) || of.epoch !== other.epoch || of.n !== other.n);
        expect(readAll(encode(of, []), other)).toBeUndefined();
      }),
    );
  });

  it('with a changed byte, or cut anywhere, is refused as damaged', () => {
    fc.assert(
      fc.property(
        head,
        fc.array(record, { maxLength: 4 }),
        change,
        fc.nat(),
        (of, records, { at, to }, cut) => {
          const object = encode(of, records);
          const changed = Buffer.from(object);
          changed[at % object.length] = to;
          if (!changed.equals(object)) expect(readAll(changed, of)).toBeUndefined();
          expect(readAll(object.subarray(0, cut % object.length), of)).toBeUndefined();
        },
      ),
    );
  });

  it('that a hostile keeper makes is read or refused as damaged, and names nothing outside of a project', () => {
    const hostile = fc.tuple(fc.array(change, { minLength: 1, maxLength: 6 }), bytes(0, 60));
    fc.assert(
      fc.property(head, fc.array(record, { maxLength: 4 }), hostile, (of, records, [changes, more]) => {
        const object = encode(of, records);
        const longer = Buffer.concat([object.subarray(0, -HASH_BYTES), more, Buffer.alloc(HASH_BYTES)]);
        // The head without its identity, and everything behind it.
        for (const { at, to } of changes) longer[48 + (at % (longer.length - 48))] = to;
        requireInside(readAll(completed(longer), of) ?? []);
      }),
      { numRuns: 2_000 },
    );
  });

  it.each(['../project.json', 'docs/../catalog', '/etc/passwd', 'docs/x', 'carried/0', 'storage.json', ''])(
    'with a file of the name %j is refused',
    (name) => {
      const of = fc.sample(head, 1)[0] as ObjectHead;
      const file: ArchiveRecord = { kind: 'file', name, offset: 0, bytes: Buffer.from('x') };
      expect(readAll(encode(of, [file]), of)).toBeUndefined();
      const small = { name, bytes: Buffer.from('x') };
      expect(
        readAll(encode(of, [{ kind: 'small files', project: 'p', files: [small] }]), of),
      ).toBeUndefined();
    },
  );

  it.each(['..', '.', 'a/b', '/a', '', 'A\0'])('of a project named %j is refused', (project) => {
    const of = fc.sample(head, 1)[0] as ObjectHead;
    for (const kind of ['gone', 'base', 'small files'] as const) {
      const all = { project, handle: undefined, inRound: true, files: [] };
      expect(readAll(encode(of, [{ kind, ...all } as ArchiveRecord]), of)).toBeUndefined();
    }
  });

  it('follows no other one than that with the number before, so that a chain is never a circle', () => {
    fc.assert(
      fc.property(head, counted, (of, n) => {
        fc.pre(n !== of.n - 1);
        const before = { epoch: of.epoch, n, hash: Buffer.alloc(HASH_BYTES) };
        const object = encode({ ...of, before }, []);
        expect(() => decodeHead(object, of.storageId, of)).toThrow(ArchiveDamaged);
      }),
    );
  });
});
