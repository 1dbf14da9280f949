import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bundocCommand } from './support/bundoc-command.ts';
import { BundocProcess } from './support/bundoc-process.ts';
import { call, Installation } from './support/installation.ts';

const DOCUMENTS = '/v1/projects/travelling/collections/notes/documents';
const CHANGES = '/v1/projects/travelling/changes';

describeWithPostgres('bundoc move', () => {
  let server: PostgresServer;
  let installation: Installation;
  let token: string;
  let onPostgres: string;
  beforeAll(async () => {
    server = await PostgresServer.start();
    onPostgres = (await server.createDatabase('bundoc')).url;
    installation = await Installation.start();
    token = await installation.client();
  });
  afterAll(async () => {
    await installation?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
  });

  const environmentOf = (storage: string) => ({
    BUNDOC_STORAGE: storage,
    BUNDOC_DATA_DIR: installation.dataDir,
    BUNDOC_KMS_URL: installation.kms.internalUrl,
    BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
  });
  const bundoc = async (storage: string, ...args: string[]) => {
    const { code, stdout, stderr } = await bundocCommand(environmentOf(storage), args);
    return { code, output: stdout + stderr };
  };
  const write = (url: string, id: string, body: string, headers: Record<string, string> = {}) =>
    call(url, `${DOCUMENTS}/${id}`, { method: 'PUT', token, body, headers });
  /** All that a client can see of the project. */
  const view = async (url: string) => ({
    documents: (await call(url, DOCUMENTS, { token })).json()['documents'],
    changes: (await call(url, CHANGES, { token })).json()['changes'],
    repeated: (await write(url, 'kept', '{"v":"once"}', { 'idempotency-key': 'a-key' })).text,
  });

  it('takes a project to PostgreSQL and back, and nobody who uses it can tell', async () => {
    const { url } = installation;
    await write(url, 'kept', '{"v":"once"}', { 'idempotency-key': 'a-key' });
    for (const id of ['a', 'b', 'c']) await write(url, id, `{"id":"${id}","pad":"${'x'.repeat(2_000)}"}`);
    await write(url, 'a', '{"id":"a","again":1.10}');
    await call(url, `${DOCUMENTS}/b`, { method: 'DELETE', token });
    const since = String((await call(url, `${CHANGES}?limit=2`, { token })).json()['since']);
    const later = (await call(url, `${CHANGES}?since=${since}`, { token })).json()['changes'];
    const before = await view(url);

    expect(await bundoc('files', 'move', 'travelling', '--to', onPostgres)).toMatchObject({ code: 2 });
    await installation.stopBundoc();
    const there = await bundoc('files', 'move', 'travelling', '--to', onPostgres);
    expect(there).toMatchObject({ code: 0 });
    expect(readdirSync(join(installation.dataDir, 'projects', 'travelling'))).toEqual(['move.json']);
    expect(readdirSync(join(installation.dataDir, 'moved'))).toHaveLength(1);
    {
      await using node = await BundocProcess.start(environmentOf(onPostgres));
      expect(await view(node.url)).toEqual(before);
      expect((await call(node.url, `${CHANGES}?since=${since}`, { token })).json()['changes']).toEqual(later);
      expect(await bundoc(onPostgres, 'verify')).toMatchObject({
        code: 0,
        output: 'bundoc: 3 documents in 1 projects: all good\n',
      });
      const { output } = await bundoc(onPostgres, 'stats', '--json');
      expect(JSON.parse(output)).toMatchObject({
        projects: [{ project: 'travelling', documents: 3, tombstones: 1, collections: 1, keyVersions: [1] }],
      });
      expect((await write(node.url, 'new', '{"made":"there"}')).status).toBe(201);
      await node.stop();
    }
    const back = await bundoc(onPostgres, 'move', 'travelling', '--to', 'files');
    expect(back).toMatchObject({ code: 0 });
    expect(await server.sql('SELECT count(*) FROM bundoc.documents', 'bundoc')).toBe('0');
    expect((await bundoc('files', 'verify')).output).toBe('bundoc: 4 documents in 1 projects: all good\n');
    await installation.startBundoc();
    const after = await view(installation.url);
    expect(after.repeated).toBe(before.repeated);
    expect(after.documents).toMatchObject([...(before.documents as object[]), { _id: 'new', made: 'there' }]);
    expect(
      (await call(installation.url, `${CHANGES}?since=${since}`, { token })).json()['changes'],
    ).toMatchObject([...(later as object[]), { _id: 'new' }]);
    expect((await write(installation.url, 'a', '{"v":"goes on"}')).status).toBe(200);
    await installation.stopBundoc();
  });

  it('brings in nothing of a project that is there already, or is damaged, and finds what somebody changed', async () => {
    expect(await bundoc('files', 'move', 'travelling', '--to', onPostgres)).toMatchObject({ code: 0 });
    await server.sql(
      'UPDATE bundoc.documents SET rev = set_byte(rev, 0, get_byte(rev, 0) # 1) WHERE seq = 1',
      'bundoc',
    );
    const found = await bundoc(onPostgres, 'verify', 'travelling');
    expect(found.code).toBe(1);
    expect(found.output).toContain('the row does not open, or is not as it was written');
    const refused = await bundoc(onPostgres, 'move', 'travelling', '--to', 'files');
    expect(refused.code).toBe(2);
    expect(refused.output).toContain('does not open');
    expect(await server.sql('SELECT count(*) FROM bundoc.projects', 'bundoc')).toBe('1');
    // The id stays reserved there, so that nobody makes another project of it.
    expect(readdirSync(join(installation.dataDir, 'projects', 'travelling'))).toEqual(['move.json']);
    for (const args of [
      ['none', '--to', 'files'],
      ['../x', '--to', 'files'],
      ['travelling', '--to', onPostgres],
    ])
      expect(await bundoc(onPostgres, 'move', ...args)).toMatchObject({ code: 2 });
  });
});
