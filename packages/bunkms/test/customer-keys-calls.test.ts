import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { LimitRates } from '../src/http/limits.ts';
import { configOf, type KmsOptions, newKek, startKms, type TestKms } from './support/kms.ts';
import { TransitServer, type TransitToken } from './support/transit-server.ts';

let folder: string;
let bao: TransitServer;
let kms: TestKms;
let token: string;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bunkms-calls-'));
  bao = await TransitServer.start();
  bao.keys.set('customer', randomBytes(32));
  writeFileSync(join(folder, 'token'), bao.newToken());
});
afterEach(async () => {
  await kms[Symbol.asyncDispose]();
  await bao[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

/** Keys whose names begin with "a-" are under the outside key from their birth. */
function writeEntries(...names: string[]): void {
  const entry = { kind: 'transit', url: bao.url, key: 'customer', token_file: 'token', create: ['a-*'] };
  const keys = Object.fromEntries(names.map((name) => [name, entry]));
  writeFileSync(join(folder, 'outside.json'), JSON.stringify({ keys }));
}

async function start(keys: readonly string[], options: KmsOptions = {}): Promise<void> {
  writeEntries('acme');
  const config = { outsideKeysFile: join(folder, 'outside.json'), ...options.config };
  kms = await startKms({ ...options, config });
  token = await kms.fullToken();
  for (const name of keys)
    expect((await kms.api('/v1/keys', { token, body: { name, type: 'aes-256' } })).status).toBe(201);
}

const release = (name: string) => kms.internal(`/v1/export/${name}`, { token });
const statusesOf = async (name: string, times: number) => {
  const statuses: number[] = [];
  for (let n = 0; n < times; n++) statuses.push((await release(name)).status);
  return statuses;
};
const hang = () => {
  bao.intercept = () => undefined;
};
const disconnect = () => {
  bao.intercept = (_request, response) => response.destroy();
};
const exportsOf = (records: readonly AuditRecord[]) =>
  records.filter(({ action }) => action === 'key.export');

describe('an export under an outside key', () => {
  it('names the outside key in its answer, and in its refusal, which says when to ask again', async () => {
    await start(['a-1', 'b-1']);
    expect((await release('a-1')).json()).toMatchObject({ outside_key: 'acme' });
    expect((await release('b-1')).json()).not.toHaveProperty('outside_key');
    disconnect();
    const away = await release('a-1');
    expect([away.status, away.json()]).toMatchObject([
      503,
      { code: 'outside_key_unavailable', outside_key: 'acme' },
    ]);
    expect(away.headers['retry-after']).toBe('1');
  });

  it('hangs with few others: further ones are refused at once, and other keys are released', async () => {
    await start(['a-1', 'b-1']);
    hang();
    const hanging = Array.from({ length: 100 }, () => release('a-1'));
    await expect.poll(() => bao.asked.filter((path) => path.includes('/decrypt/')).length).toBe(9);
    expect((await release('b-1')).status).toBe(200);
    const codes = (await Promise.all(hanging)).map((answer) => answer.json().code);
    expect(new Set(codes)).toEqual(new Set(['outside_key_unavailable']));
    bao.asked.length = 0;
    const [probe, ...others] = Array.from({ length: 20 }, () => release('a-1'));
    await Promise.all(others);
    expect((await probe)?.status).toBe(503);
    expect(bao.asked).toHaveLength(1);
  });

  it('uses up no other export of its token: they have a rate of their own, and share that of their key', async () => {
    const rates: LimitRates = { ...configOf('', newKek()).limits, exportsPerToken: 0.5 };
    await start(['a-1', 'b-1'], { clock: new FakeClock(), config: { limits: rates } });
    disconnect();
    const both = [503, 503, 429, 429];
    expect(await statusesOf('a-1', 4)).toEqual(both);
    expect(await statusesOf('b-1', 4)).toEqual([200, 200, 429, 429]);
  });
});

describe('the records of exports under an outside key', () => {
  it("have the provider's id of the call, and how long it took, also when it is denied", async () => {
    await start(['a-1', 'a-2', 'a-3', 'a-4']);
    await release('a-1');
    const [allowed] = exportsOf(await kms.records()).filter(({ outcome }) => outcome === 'allowed');
    expect(allowed).toMatchObject({
      severity: 'CRITICAL',
      detail: { outside_ms: expect.any(Number), outside_request_id: bao.requestIds.at(-1) },
    });
    for (const [key, requestId] of [
      ['a-1', 'denied-1'],
      ['a-2', 'x'.repeat(129)],
      ['a-3', 'line\nbreak'],
      ['a-4', 7],
    ] as const) {
      bao.intercept = ({ url }, response) => {
        // Our own token works, so the refusal counts.
        if (url?.includes('lookup-self')) response.end('{"data":{"ttl":60}}');
        else {
          const body = { request_id: requestId, errors: ['encryption key not found'] };
          response.writeHead(400).end(JSON.stringify(body));
        }
      };
      await release(key);
    }
    const refused = exportsOf(await kms.records()).filter(({ outcome }) => outcome !== 'allowed');
    expect(
      refused.map(({ code, detail }) => [code, detail?.['outside'], detail?.['outside_request_id']]),
    ).toEqual(['denied-1', undefined, undefined, undefined].map((id) => ['outside_key_denied', 'acme', id]));
    expect(refused[0]?.detail?.['outside_ms']).toEqual(expect.any(Number));
  });

  it('after the first refusal of a minute and key are one, with their number; other keys have their own', async () => {
    const clock = new FakeClock();
    await start(['a-1', 'a-2', 'b-1'], { clock });
    const holder = [...bao.tokens.values()][0] as TransitToken;
    holder.mayUse = false;
    await statusesOf('a-1', 30);
    await statusesOf('a-2', 1);
    const refused = async () =>
      exportsOf(await kms.records())
        .filter(({ outcome }) => outcome !== 'allowed')
        .map(({ key, code, outcome, detail }) => ({ key, code, outcome, count: detail?.['count'] }));
    const denied = (key: string, count?: number) => ({
      key,
      code: 'outside_key_denied',
      outcome: 'refused',
      count,
    });
    expect(await refused()).toEqual([denied('a-1'), denied('a-2')]);
    clock.advance(60_000);
    await statusesOf('a-1', 1);
    expect(await refused()).toEqual([denied('a-1'), denied('a-2'), denied('a-1', 29), denied('a-1')]);
    disconnect();
    await statusesOf('a-2', 1);
    expect((await refused()).at(-1)).toMatchObject({ code: 'outside_key_unavailable', outcome: 'failed' });
    expect(await kms.verify()).toMatchObject({ intact: true });
  });
});

describe('the metrics of outside keys', () => {
  const seriesOf = async (name: string) => {
    const { text } = await kms.internal('/metrics');
    return text.split('\n').filter((line) => line.startsWith(name));
  };
  const callsOf = async (entry: string) =>
    (await seriesOf('bunkms_outside_calls_total')).filter((line) => line.includes(`"${entry}"`));

  it('have all outcomes of each entry from the start, and none of an entry that is gone', async () => {
    await start([]);
    expect(await callsOf('acme')).toEqual(
      ['ok', 'denied', 'unavailable', 'damaged'].map(
        (outcome) => `bunkms_outside_calls_total{entry="acme",outcome="${outcome}"} 0`,
      ),
    );
    writeEntries('other');
    await expect.poll(() => callsOf('other')).toHaveLength(4);
    expect(await callsOf('acme')).toEqual([]);
  });

  it('count each call by its outcome, and how long it took', async () => {
    await start(['a-1']);
    await release('a-1');
    disconnect();
    await release('a-1');
    // A birth wraps and unwraps.
    expect(await callsOf('acme')).toEqual([
      'bunkms_outside_calls_total{entry="acme",outcome="ok"} 3',
      'bunkms_outside_calls_total{entry="acme",outcome="denied"} 0',
      'bunkms_outside_calls_total{entry="acme",outcome="unavailable"} 1',
      'bunkms_outside_calls_total{entry="acme",outcome="damaged"} 0',
    ]);
    expect(await seriesOf('bunkms_outside_call_seconds_count')).toContain(
      'bunkms_outside_call_seconds_count{outcome="ok"} 3',
    );
  });
});
