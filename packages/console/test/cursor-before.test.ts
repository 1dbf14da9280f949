import fc from 'fast-check';
import { expect, it } from 'vitest';
import { cursorBefore } from '../src/bunkms/cursor-before.ts';

const name = fc.stringMatching(/^[a-z0-9][a-z0-9._-]{0,127}$/);
/** Names that differ in their last characters only. */
const near = name.chain((begin) =>
  fc.stringMatching(/^[a-z0-9._-]{0,3}$/).map((end) => `${begin.slice(0, 125)}${end}`),
);

it('begins a list of keys with exactly the names from a name on', () => {
  fc.assert(
    fc.property(name, fc.array(fc.oneof(name, near), { maxLength: 20 }), (from, others) => {
      const relatives = [from, `${from}-`.slice(0, 128), `${from}a`.slice(0, 128), from.slice(0, -1)];
      const names = [...others, ...relatives].filter((one) => one !== '');
      const cursor = cursorBefore(from);
      const listed = names.filter((one) => cursor === undefined || one > cursor);
      expect(listed).toEqual(names.filter((one) => one >= from));
    }),
  );
});

it('begins with the first letter behind all digits', () => {
  const cursor = String(cursorBefore('a'));
  expect(['0', '9', `9${'z'.repeat(127)}`, 'a', 'a-'].filter((one) => one > cursor)).toEqual(['a', 'a-']);
});

it('begins at the start without a name', () => {
  expect(cursorBefore('')).toBeUndefined();
});
