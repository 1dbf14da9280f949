import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FairBatches } from './fair-batches.ts';

const item = (subject: string, project: string, bytes = 0) => ({ share: { subject, project }, bytes });
type Item = ReturnType<typeof item>;
const nameOf = ({ share: { subject, project } }: Item) => `${subject}/${project}`;

describe('batches of items', () => {
  it('contain one item of each subject in turn, then of each project within a subject, however many wait', () => {
    const batches = new FairBatches<Item>({ itemsMax: 6 });
    for (let n = 0; n < 20; n++) batches.add(item('many', `p${n % 4}`));
    batches.add(item('few', 'p'));
    batches.add(item('few', 'p'));
    batches.add(item('one', 'p'));
    expect(batches.take().map(nameOf)).toEqual(['many/p0', 'few/p', 'one/p', 'many/p1', 'few/p', 'many/p2']);
    batches.add(item('late', 'p'));
    expect(batches.take().map(nameOf)).toEqual([
      ...['many/p3', 'late/p', 'many/p0', 'many/p1', 'many/p2', 'many/p3'],
    ]);
  });

  it('contain up to a limit of bytes, or one item, and skip nobody twice', () => {
    const batches = new FairBatches<Item>({ itemsMax: 10, bytesMax: 10, bytesOf: ({ bytes }) => bytes });
    batches.add(item('a', 'p', 20));
    batches.add(item('b', 'p', 6));
    batches.add(item('c', 'p', 6));
    expect(batches.take().map(nameOf)).toEqual(['a/p']);
    expect(batches.take().map(nameOf)).toEqual(['b/p']);
    batches.add(item('b', 'p', 6));
    expect(batches.take().map(nameOf)).toEqual(['c/p']);
  });

  it('contain every item once, and at least one while any waits', () => {
    const added = fc.tuple(fc.nat(3), fc.nat(3), fc.nat(20));
    fc.assert(
      fc.property(fc.array(fc.option(added), { maxLength: 60 }), (steps) => {
        const batches = new FairBatches<Item>({ itemsMax: 4, bytesMax: 30, bytesOf: ({ bytes }) => bytes });
        const waiting = new Set<Item>();
        const take = () => {
          const taken = batches.take();
          expect(taken.length > 0).toBe(waiting.size > 0);
          for (const one of taken) expect(waiting.delete(one)).toBe(true);
          expect(batches.size).toBe(waiting.size);
        };
        for (const step of steps) {
          if (step === null) take();
          else {
            const [subject, project, bytes] = step;
            const one = item(`s${subject}`, `p${project}`, bytes);
            waiting.add(one);
            batches.add(one);
          }
        }
        while (waiting.size > 0) take();
      }),
    );
  });
});
