import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LargeReads } from './large-reads.ts';

const MIB = 1_048_576;
const readOf = (subject: string, project: string, size = 0) => ({ share: { subject, project }, size });
type Read = ReturnType<typeof readOf>;
const nameOf = ({ share: { subject, project } }: Read) => `${subject}/${project}`;

describe('statements for large documents', () => {
  it('contain those of the subject that has read fewest bytes, then of its project that has, however many wait', () => {
    const reads = new LargeReads<Read>();
    for (let n = 0; n < 20; n++) reads.add(readOf('many', `p${n % 4}`, MIB / 2));
    reads.add(readOf('few', 'p', MIB));
    reads.add(readOf('few', 'p', MIB));
    reads.add(readOf('one', 'p', MIB / 2));
    expect(reads.take().map(nameOf)).toEqual(['many/p0', 'few/p', 'one/p', 'many/p1', 'many/p2', 'few/p']);
    reads.add(readOf('late', 'p', MIB));
    expect(reads.take().map(nameOf)).toEqual([
      ...['late/p', 'many/p3', 'many/p0', 'many/p1', 'many/p2', 'many/p3', 'many/p0'],
    ]);
  });

  it('contain up to 32 documents and 4 MiB, or one document, and skip nobody twice', () => {
    const reads = new LargeReads<Read>();
    reads.add(readOf('a', 'p', 8 * MIB));
    reads.add(readOf('b', 'p', 3 * MIB));
    reads.add(readOf('c', 'p', 3 * MIB));
    expect(reads.take().map(nameOf)).toEqual(['a/p']);
    expect(reads.take().map(nameOf)).toEqual(['b/p']);
    reads.add(readOf('b', 'p', 2 * MIB));
    expect(reads.take().map(nameOf)).toEqual(['c/p']);
    for (let n = 0; n < 40; n++) reads.add(readOf('b', `p${n}`));
    expect(reads.take()).toHaveLength(32);
  });

  it('contain every document once, and at least one while any waits', () => {
    const added = fc.tuple(fc.nat(3), fc.nat(3), fc.nat(6 * MIB));
    fc.assert(
      fc.property(fc.array(fc.option(added), { maxLength: 60 }), (steps) => {
        const reads = new LargeReads<Read>();
        const waiting = new Set<Read>();
        const take = () => {
          const taken = reads.take();
          expect(taken.length > 0).toBe(waiting.size > 0);
          for (const one of taken) expect(waiting.delete(one)).toBe(true);
          expect(reads.size > 0).toBe(waiting.size > 0);
        };
        for (const step of steps) {
          if (step === null) take();
          else {
            const [subject, project, size] = step;
            const one = readOf(`s${subject}`, `p${project}`, size);
            waiting.add(one);
            reads.add(one);
          }
        }
        while (waiting.size > 0) take();
      }),
    );
  });
});
