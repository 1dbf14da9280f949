import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { createHttpServer } from '@bundoc/shared/http/server';
import { createLogger } from '@bundoc/shared/logs/logger';
import { expect, it } from 'vitest';
import type { Documents } from '../service/documents.ts';
import { WorkBench } from '../testing/work-bench.ts';
import { Scheduler, SLICE_US } from '../work/scheduler.ts';
import { registerDocuments } from './documents.ts';

/** Reads of documents of this size, by subjects that host names identify. */
function start(bytes: number) {
  const bench = new WorkBench();
  const usedUs = new Map<string, number>();
  const scheduler = new Scheduler({
    ...bench.ports,
    onUsed: ({ subject }, us) => usedUs.set(subject, (usedUs.get(subject) ?? 0) + us),
  });
  const read: string[] = [];
  const documents = {
    read: (project: string) => {
      read.push(project);
      return { metadata: { _rev: '00' }, text: Buffer.alloc(bytes, ' ') };
    },
  } as unknown as Documents;
  const auth = {
    authenticate: ({ headers }: { headers: { host: string } }) => ({
      jti: headers.host,
      projects: ['*'],
      scope: ['docs:read'],
    }),
  } as unknown as BearerAuth;
  const app = createHttpServer({
    logger: createLogger({ service: 'bundoc', level: 'silent' }),
    bodyBytesMax: 1_000,
  });
  registerDocuments(app, documents, auth, scheduler);
  const get = (subject: string) =>
    app.inject({
      url: `/v1/projects/${subject}/collections/notes/documents/d`,
      headers: { host: subject },
    });
  return { app, bench, scheduler, read, usedUs, get };
}

it('a read of a large document is charged to its subject as processor time, and a small one is not', async () => {
  const large = start(8_388_608);
  await using _large = large.app;
  expect((await large.get('a')).statusCode).toBe(200);
  expect(large.usedUs.get('a')).toBeGreaterThan(2 * SLICE_US);
  const small = start(1_024);
  await using _small = small.app;
  expect((await small.get('a')).statusCode).toBe(200);
  expect(small.usedUs.size).toBe(0);
});

it('a subject that reads large documents gets one for each slice, and another subject does not wait for them', async () => {
  const { app, bench, scheduler, read, get } = start(4_194_304);
  await using _app = app;
  expect((await get('many')).statusCode).toBe(200);
  const many = Array.from({ length: 5 }, () => get('many'));
  await expect.poll(() => scheduler.waiting).toBe(5);
  const few = get('few');
  expect((await few).statusCode).toBe(200);
  expect(read).toEqual(['many', 'few']);
  while (read.length < 7) {
    const before = read.length;
    await bench.turn();
    await expect.poll(() => scheduler.isBusy).toBe(true);
    expect(read.length - before).toBeLessThanOrEqual(1);
  }
  for (const answer of many) expect((await answer).statusCode).toBe(200);
});
