import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { createHttpShares } from '@bundoc/shared/http/http-shares';
import { createHttpServer } from '@bundoc/shared/http/server';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { createLogger } from '@bundoc/shared/runtime/logger';
import { Share } from '@bundoc/shared/shares/share';
import { expect, it } from 'vitest';
import { PAGE_BYTES_MAX } from '../engine/page-limits.ts';
import type { Queries } from '../service/queries.ts';
import { Scheduler } from '../work/scheduler.ts';
import { registerQueries } from './queries.ts';

it('a query does not start for a subject with unread answers and no memory for the largest page', async () => {
  const answers = new Share({
    name: 'answers',
    capacity: 2 * PAGE_BYTES_MAX,
    waitMs: 20,
    clock: systemClock,
  });
  await using app = createHttpServer({
    logger: createLogger({ service: 'bundoc', level: 'silent' }),
    bodyBytesMax: 1_000,
    shares: { ...createHttpShares(), answers },
  });
  let begun = 0;
  const queries = {
    query: async () => {
      begun++;
      return { documents: [], next: undefined, unreadable: [], explanation: undefined };
    },
  } as unknown as Queries;
  let subject = 'greedy';
  const auth = {
    authenticate: () => ({ jti: subject, projects: ['*'], scope: ['docs:read'] }),
  } as unknown as BearerAuth;
  registerQueries(app, queries, auth, new Scheduler());
  const url = '/v1/projects/p/collections/notes/query';
  const query = async () =>
    (
      await app.inject({
        method: 'POST',
        url,
        payload: '{}',
        headers: { 'content-type': 'application/json' },
      })
    ).statusCode;
  expect([await query(), begun]).toEqual([200, 1]);
  using _untaken = answers.charge({ subject, project: 'p' }, PAGE_BYTES_MAX + 1);
  expect([await query(), begun]).toEqual([429, 1]);
  subject = 'other';
  expect([await query(), begun]).toEqual([200, 2]);
  expect(answers.held).toBe(PAGE_BYTES_MAX + 1);
});
