import { beforeEach, expect, it } from 'vitest';
import { ProcessorUse, USERS_MAX } from './processor-use.ts';

let lines: object[];
let use: ProcessorUse;
beforeEach(() => {
  lines = [];
  use = new ProcessorUse({ info: (line: object) => void lines.push(line) } as never);
});

const key = (subject: string, project = 'p') => ({ subject, project });

it('names the five who used the processor most in a busy minute, by subject and project', () => {
  for (let n = 1; n <= 6; n++) for (let times = 0; times < 2; times++) use.count(key(`s${n}`), n * 1_000_000);
  use.count(key('s6', 'q'), 500_000);
  use.count(key('', 'own'), 7_000_000);
  use.report();
  expect(lines).toEqual([
    {
      ms: 49_500,
      most: [
        { subject: 's6', project: 'p', ms: 12_000 },
        { subject: 's5', project: 'p', ms: 10_000 },
        { subject: 's4', project: 'p', ms: 8_000 },
        { project: 'own', ms: 7_000 },
        { subject: 's3', project: 'p', ms: 6_000 },
      ],
    },
  ]);
});

it('says nothing about a minute in which less than half of a processor was used, and counts each minute on its own', () => {
  use.count(key('a'), 29_999_000);
  use.report();
  use.count(key('a'), 29_999_000);
  use.report();
  use.count(key('b'), 30_000_000);
  use.report();
  expect(lines).toEqual([{ ms: 30_000, most: [{ subject: 'b', project: 'p', ms: 30_000 }] }]);
});

it('names who used most however many others there were, and keeps a bounded number', () => {
  use.count(key('early'), 20_000_000);
  for (let n = 0; n < 3 * USERS_MAX; n++) use.count(key(`s${n}`), 1_000);
  use.count(key('late', ''), 30_000_000);
  use.report();
  expect(lines).toMatchObject([
    {
      ms: 62_288,
      most: [{ subject: 'late', ms: 30_000 }, { subject: 'early', project: 'p', ms: 20_000 }, {}, {}, {}],
    },
  ]);
});
