import { expect, it } from 'vitest';
import { createHttpShares } from './http-shares.ts';

const MIB = 1_048_576;

it('two of the largest answers may wait for the smallest room, and a third one may not', async () => {
  const { answers } = createHttpShares({ answerBytes: 32 * MIB });
  const key = (subject: string) => ({ subject, project: 'p' });
  const full = answers.charge(key('greedy'), 32 * MIB);
  const waiting = ['a', 'b', 'c'].map((subject) => answers.take(key(subject), 16.5 * MIB));
  await expect(waiting[2]).rejects.toMatchObject({ code: 'overloaded' });
  expect(answers.waiting).toBe(2);
  full[Symbol.dispose]();
  for (const wait of waiting.slice(0, 2)) (await wait)[Symbol.dispose]();
  expect(answers.held).toBe(0);
});
