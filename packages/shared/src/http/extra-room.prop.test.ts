import fc from 'fast-check';
import { expect, it } from 'vitest';
import { ExtraRoom } from './extra-room.ts';

it('extra room has one item of each subject, and besides the largest no more than its bytes', () => {
  const step = fc.record({ subject: fc.constantFrom('a', 'b', 'c', 'd', 'e'), bytes: fc.nat(60) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const room = new ExtraRoom(100);
      const inside = new Map<string, number>();
      for (const { subject, bytes } of steps) {
        if (inside.has(subject)) {
          expect(room.hasRoom(subject, bytes)).toBe(false);
          room.leave(subject);
          inside.delete(subject);
          continue;
        }
        const all = [...inside.values(), bytes].sort((a, b) => a - b);
        const besidesLargest = all.slice(0, -1).reduce((sum, one) => sum + one, 0);
        expect(room.hasRoom(subject, bytes)).toBe(besidesLargest <= 100);
        if (besidesLargest > 100) continue;
        room.enter(subject, bytes);
        inside.set(subject, bytes);
      }
    }),
  );
});
