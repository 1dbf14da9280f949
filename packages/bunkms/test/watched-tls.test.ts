import { Writable } from 'node:stream';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { WatchedTls } from '@bundoc/shared/tls/watched-tls';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestPki } from './support/pki.ts';

const DAY_MS = 86_400_000;
const lines: string[] = [];
const logger = createLogger({
  service: 'bunkms',
  level: 'trace',
  destination: new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(String(chunk));
      done();
    },
  }),
});
let pki: TestPki;

beforeAll(async () => {
  pki = await TestPki.make();
});
afterAll(() => pki[Symbol.dispose]());

it('logs once a day that a certificate expires, from 14 days before, and at a higher level after its expiry', async () => {
  const clock = new FakeClock();
  clock.setWall(Date.now());
  const files = pki.write('ending', await pki.issue({ to: 20 }));
  using tls = new WatchedTls({ files, use: 'internal', clock, logger });
  const said = (what: string) => lines.filter((line) => line.includes(what)).length;
  tls.check();
  expect(said('expires soon')).toBe(0);
  clock.advance(6.5 * DAY_MS);
  tls.check();
  tls.check();
  expect(said('expires soon')).toBe(1);
  clock.advance(DAY_MS);
  tls.check();
  expect(said('expires soon')).toBe(2);
  expect(said('has expired')).toBe(0);
  clock.advance(20 * DAY_MS);
  tls.check();
  expect(said('has expired')).toBe(1);
  pki.write('ending', await pki.issue({ to: 400 }));
  tls.check();
  tls.check();
  expect(said('has expired')).toBe(1);
  expect(Number(tls.notAfterMs)).toBeGreaterThan(Date.now() + 399 * DAY_MS);
});

it('adopts a pair that is written in two steps, without an error in the log', async () => {
  const files = pki.write('halves', await pki.issue());
  using tls = new WatchedTls({ files, use: 'halves', clock: new FakeClock(), logger });
  const before = tls.context.cert;
  const [next, again] = [await pki.issue(), await pki.issue()];
  pki.write('halves', { cert: next.cert, key: again.key });
  tls.check();
  expect(tls.context.cert).toBe(before);
  pki.write('halves', next);
  tls.check();
  expect(String(tls.context.cert)).toBe(next.cert);
  expect(lines.filter((line) => line.includes('keeping the previous one'))).toEqual([]);
});
