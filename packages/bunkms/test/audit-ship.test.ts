import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { verifyChain } from '../src/records/chain.ts';
import { bunkms } from './support/command.ts';
import { call } from './support/http.ts';
import { newDataDir, newKek, startKms } from './support/kms.ts';
import { type Server, startServer } from './support/process.ts';

let environment: { BUNKMS_DATA_DIR: string; BUNKMS_KEK: string };
beforeEach(() => {
  environment = { BUNKMS_DATA_DIR: newDataDir(), BUNKMS_KEK: newKek() };
});
afterEach(() => rmSync(environment.BUNKMS_DATA_DIR, { recursive: true }));

async function issueToken(): Promise<string> {
  expect((await bunkms(environment, 'init')).code).toBe(0);
  const issue = ['token', 'issue', '--typ', 'service', '--sub', 'x', '--keys', '*'];
  const scopes = ['--scope', 'kms:create_key kms:export_key kms:audit'];
  return (await bunkms(environment, ...issue, ...scopes)).stdout.trim();
}

function parsed(text: string): AuditRecord[] {
  const lines = text.split('\n').filter((line) => line.startsWith('{"format":"bunkms/audit/v1"'));
  return lines.flatMap((line) => {
    try {
      const { format: _, ...record } = JSON.parse(line) as { format: string } & AuditRecord;
      return [record];
    } catch {
      return [];
    }
  });
}

const headOf = async ({ apiUrl }: Server, token: string): Promise<number> =>
  (await call(apiUrl, '/v1/audit/head', { token })).json().seq;

it('after kill -9 during exports the copy contains every record of the chain, in order', async () => {
  const token = await issueToken();
  const path = join(environment.BUNKMS_DATA_DIR, 'copy.ndjson');
  const start = () => startServer({ ...environment, BUNKMS_AUDIT_SHIP: `file:${path}` });
  for (let round = 0; round < 3; round++) {
    const server = await start();
    await call(server.apiUrl, '/v1/keys', { token, body: { name: `k${round}`, type: 'aes-256' } });
    let exports = 0;
    const worker = async () => {
      for (;;) {
        await call(server.internalUrl, `/v1/export/k${round}`, { token });
        if (++exports === 300) server.process.kill('SIGKILL');
      }
    };
    await Promise.all(Array.from({ length: 8 }, () => worker().catch(() => undefined)));
    await server.exited;
  }
  await using server = await start();
  const head = await headOf(server, token);
  const copied = () => parsed(readFileSync(path, 'utf8'));
  await expect.poll(() => copied().at(-1)?.seq ?? 0).toBeGreaterThanOrEqual(head);
  const bySeq = new Map(copied().map((record) => [record.seq, record]));
  const records = [...bySeq.values()].sort((one, other) => one.seq - other.seq);
  await using kms = await startKms({ dataDir: environment.BUNKMS_DATA_DIR, kek: environment.BUNKMS_KEK });
  const verdict = await verifyChain((await kms.secrets()).chainKey, records);
  expect(verdict).toMatchObject({ intact: true });
  expect(records.length).toBeGreaterThan(900);
});

it('standard output gets both the chain and the log', async () => {
  const token = await issueToken();
  await using server = await startServer({ ...environment, BUNKMS_AUDIT_SHIP: 'stdout' });
  const head = await headOf(server, token);
  await expect.poll(() => parsed(server.log).at(-1)?.seq ?? 0).toBeGreaterThanOrEqual(head);
  expect(server.log).toContain('"msg":"listening"');
});

it('a target that cannot be written is logged, and releases of keys continue', async () => {
  const path = join(environment.BUNKMS_DATA_DIR, 'copy.ndjson');
  mkdirSync(path);
  await using kms = await startKms({
    dataDir: environment.BUNKMS_DATA_DIR,
    kek: environment.BUNKMS_KEK,
    config: { auditShip: { kind: 'file', path } },
  });
  const token = await kms.fullToken();
  await kms.api('/v1/keys', { token, body: { name: 'a-dek', type: 'aes-256' } });
  expect((await kms.internal('/v1/export/a-dek', { token })).status).toBe(200);
  const metric = async (name: string) =>
    Number(new RegExp(`^${name} (\\d+)`, 'm').exec((await kms.internal('/metrics')).text)?.[1]);
  await expect.poll(() => metric('bunkms_audit_ship_failures_total')).toBeGreaterThan(0);
  expect(await metric('bunkms_audit_ship_lag_records')).toBeGreaterThan(3);
  const where = `cannot be copied to file:${path} (BUNKMS_AUDIT_SHIP)`;
  expect(kms.logs.filter((line) => line.includes(where))).toEqual([
    expect.stringContaining('; trying again: the target is not a regular file: name one"'),
  ]);
  expect((await kms.internal('/ready')).status).toBe(200);
  rmSync(path, { recursive: true });
  await expect.poll(() => metric('bunkms_audit_ship_lag_records')).toBe(0);
});
