import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { runBunkms } from '@bundoc/bunkms/cli/program';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

/** Cuts the last record off the chain. */
const CUT = 'DELETE FROM audit WHERE seq > (SELECT max(seq) FROM audit) - 1';

let installation: Installation;
let token: string;
beforeEach(async () => {
  installation = await Installation.start();
  token = await installation.client();
});
afterEach(() => installation[Symbol.asyncDispose]());

const write = (project: string) =>
  call(installation.url, `/v1/projects/${project}/collections/notes/documents/a`, {
    method: 'PUT',
    token,
    body: '{"n":1}',
  });
const ready = async (url: string) => (await call(url, '/ready')).json()['status'];
function edit(sql: string): void {
  const database = new DatabaseSync(join(installation.kmsDir, 'bunkms.sqlite'));
  database.exec(sql);
  database.close();
}

describe('a chain of BunKMS that was cut while both services were down', () => {
  /** Makes BunKMS release a key at the end of its chain, stops both, and cuts that record off. */
  async function cutWhileDown(): Promise<void> {
    expect((await write('cold')).status).toBe(201);
    await installation.stopBundoc();
    await installation.stopKms();
    edit(CUT);
    await installation.startKms();
    expect(await ready(installation.kms.apiUrl)).toBe('ready');
    await installation.startBundoc();
  }

  it('is noticed by the receipt that Bundoc has kept, and no key is released any more', async () => {
    await cutWhileDown();
    await expect.poll(() => ready(installation.kms.apiUrl)).toBe('sealed');
    const { faults } = (await call(installation.kms.apiUrl, '/ready')).json() as { faults?: string[] };
    expect(faults).toEqual([expect.stringMatching(/^the audit chain lacks its record \d+$/)]);
    expect((await write('another')).json()['code']).toBe('kms_unavailable');
  });

  it('is used again by both services once an operator has accepted the loss', async () => {
    await cutWhileDown();
    await expect.poll(() => ready(installation.kms.apiUrl)).toBe('sealed');
    const accepted = await capturedRun(() =>
      runBunkms(['audit', 'accept-loss', '--confirm'], { NODE_ENV: 'test', ...installation.kmsEnvironment }),
    );
    expect([accepted.code, accepted.stderr]).toEqual([0, '']);
    await expect.poll(() => ready(installation.kms.apiUrl)).toBe('ready');
    await expect.poll(async () => (await write('another')).status).toBe(201);
  });
});
