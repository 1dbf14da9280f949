import type { IncomingMessage } from 'node:http';
import { PassThrough } from 'node:stream';
import type { FastifyRequest } from 'fastify';
import { expect, it } from 'vitest';
import type { AppError } from '../contract/app-error.ts';
import { systemClock } from '../runtime/clock.ts';
import { Share } from '../shares/share.ts';
import { BodyBufferBudget } from './body-buffer-budget.ts';

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
