import type { IncomingMessage } from 'node:http';
import { PassThrough } from 'node:stream';
import type { FastifyRequest } from 'fastify';
import { expect, it } from 'vitest';
import type { AppError } from '../contract/app-error.ts';
import { systemClock } from '../runtime/clock.ts';
import { Share } from '../shares/share.ts';
import { FakeClock } from '../testing/fake-clock.ts';
import { BodyBufferBudget } from './body-buffer-budget.ts';
import { MAKE_ROOM_AFTER_MS } from './pace.ts';
import { assignShare } from './request-share.ts';

it('the room of a refused body is free at once, however long its refusal takes', () => {
  const share = new Share({ clock: systemClock, name: 'request bodies', capacity: 100_000 });
  const budget = new BodyBufferBudget(share);
  const request = { routeOptions: { bodyLimit: 1_000_000 }, ip: '127.0.0.1' } as FastifyRequest;
  const payload = Object.assign(new PassThrough(), { headers: { 'content-length': '80000' } });
  const refusals: (AppError | null)[] = [];
  budget.read(request, payload as unknown as IncomingMessage, (error) => refusals.push(error));
  payload.emit('data', Buffer.alloc(1));
  expect(share.held).toBeGreaterThan(0);
  for (let second = 0; second < 6; second++) budget.sweep();
  expect(refusals).toMatchObject([{ code: 'request_timeout' }]);
  expect(share.held).toBe(0);
});

it('room for another subject is made by one refusal, not by those of all small bodies that wait', async () => {
  const clock = new FakeClock();
  const share = new Share({ clock, name: 'request bodies', capacity: 1_000_000, smallMax: 65_536 });
  const budget = new BodyBufferBudget(share);
  const refused: string[] = [];
  const begin = (subject: string, bytes: number, arrived: number) => {
    const request = { routeOptions: { bodyLimit: 16_000_000 }, ip: '127.0.0.1' } as FastifyRequest;
    assignShare(request, { subject, project: 'p' });
    const payload = Object.assign(new PassThrough(), { headers: { 'content-length': String(bytes) } });
    budget.read(request, payload as unknown as IncomingMessage, (error) =>
      refused.push(`${subject} ${bytes} ${error?.code}`),
    );
    payload.emit('data', Buffer.alloc(arrived));
  };
  begin('a', 2_000_000, 950_000);
  for (let n = 0; n < 6; n++) begin('a', 60_000, 30_000);
  // The first one is read in extra room.
  for (let n = 0; n < 2; n++) begin('b', 300_000, 300_000);
  clock.advance(MAKE_ROOM_AFTER_MS);
  budget.sweep();
  expect(refused).toEqual(['a 2000000 request_timeout']);
});
