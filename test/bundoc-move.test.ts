import { readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { patientUrl, startInBackground } from '@bundoc/shared/testing/timing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundocCommand } from './support/bundoc-command.ts';
import { startBundocProcess, startConfiguredBundoc } from './support/bundoc-process.ts';
import { EventReader } from './support/event-reader.ts';
import { call, Installation, PATIENT_BUNDOC } from './support/installation.ts';

const DOCUMENTS = '/v1/projects/travelling/collections/notes/documents';
const CHANGES = '/v1/projects/travelling/changes';

describe('bundoc move', needs('postgresql'), () => {
  let server: PostgresServer;
  let installation: Installation;
  let token: string;
  let onPostgres: string;
  beforeAll(async () => {
    server = await PostgresServer.start();
    onPostgres = patientUrl((await server.createDatabase('bundoc')).url);
    installation = await Installation.start();
    token = await installation.client();
  });
  afterAll(async () => {
    await installation?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
  });

  const environmentOf = (storage: string) => ({
    ...PATIENT_BUNDOC,
    BUNDOC_STORAGE: storage,
    BUNDOC_DATA_DIR: installation.dataDir,
    BUNDOC_KMS_URL: installation.kms.internalUrl,
    BUNDOC_KMS_TOKEN_FILE: installation.tokenFile,
  });
  const bundoc = async (storage: string, ...args: string[]) => {
    const { code, stdout, stderr } = await bundocCommand(environmentOf(storage), args);
    return { code, output: stdout + stderr };
  };
  /** Starts the service on files, moves a project, and stops it. */
  const moveOnline = async (project: string, admin: string, to: string) => {
    await using service = await startConfiguredBundoc({ ...environmentOf('files'), BUNDOC_MOVE_TO: to });
    const args = ['move', project, '--url', service.url, '--json'];
    return await bundocCommand({ BUNDOC_TOKEN: admin }, args);
  };
  const write = (url: string, id: string, body: string, headers: Record<string, string> = {}) =>
    call(url, `${DOCUMENTS}/${id}`, { method: 'PUT', token, body, headers });
  /** All that a client can see of the project. */
  const view = async (url: string) => ({
    documents: (await call(url, DOCUMENTS, { token })).json()['documents'],
    changes: (await call(url, CHANGES, { token })).json()['changes'],
    repeated: (await write(url, 'kept', '{"v":"once"}', { 'idempotency-key': 'a-key' })).text,
  });

  it('moves a project to PostgreSQL without a visible difference for clients, and a backup brings it back', async () => {
    const admin = await installation.client(['travelling'], ['docs:admin']);
    const { url } = installation;
    await write(url, 'kept', '{"v":"once"}', { 'idempotency-key': 'a-key' });
    for (const id of ['a', 'b', 'c']) await write(url, id, `{"id":"${id}","pad":"${'x'.repeat(2_000)}"}`);
    await write(url, 'a', '{"id":"a","again":1.10}');
    await call(url, `${DOCUMENTS}/b`, { method: 'DELETE', token });
    const since = String((await call(url, `${CHANGES}?limit=2`, { token })).json()['since']);
    const later = (await call(url, `${CHANGES}?since=${since}`, { token })).json()['changes'];
    const before = await view(url);
    const backup = join(installation.dataDir, 'travelling.backup');

    await installation.stopBundoc();
    const there = await moveOnline('travelling', admin, onPostgres);
    expect(there).toMatchObject({ code: 0 });
    const [kept] = readdirSync(join(installation.dataDir, 'moved'));
    expect(JSON.parse(there.stdout)).toEqual({ moved: 'travelling', to: expect.any(String), kept });
    expect(readdirSync(join(installation.dataDir, 'projects', 'travelling'))).toEqual(['move.mark']);
    expect(readdirSync(join(installation.dataDir, 'moved'))).toHaveLength(1);
    {
      await using node = await startConfiguredBundoc(environmentOf(onPostgres));
      expect(await view(node.url)).toEqual(before);
      expect((await call(node.url, `${CHANGES}?since=${since}`, { token })).json()['changes']).toEqual(later);
      expect(await bundoc(onPostgres, 'verify')).toMatchObject({
        code: 0,
        output: 'bundoc: 3 documents in 1 project: all good\n',
      });
      const { output } = await bundoc(onPostgres, 'stats', '--json');
      expect(JSON.parse(output)).toMatchObject({
        projects: [{ project: 'travelling', documents: 3, tombstones: 1, collections: 1, keyVersions: [1] }],
      });
      expect((await write(node.url, 'new', '{"made":"there"}')).status).toBe(201);
      const made = await bundocCommand({ BUNDOC_TOKEN: admin }, [
        ...['backup', 'travelling', backup, '--url', node.url],
      ]);
      expect(made).toMatchObject({ code: 0 });
    }
    const changed = 'UPDATE bundoc.documents SET rev = set_byte(rev, 0, get_byte(rev, 0) # 1) WHERE seq = 1';
    await server.sql(changed, 'bundoc');
    expect(await bundoc(onPostgres, 'verify', 'travelling')).toMatchObject({
      code: 1,
      output: expect.stringContaining('the row does not open, or is not as it was written'),
    });

    const refused = await bundoc('files', 'restore', backup);
    expect(refused.code).toBe(2);
    const [, storage = ''] =
      /bunkms key take-over travelling-dek --storage ([0-9a-f-]+)/.exec(refused.output) ?? [];
    await installation.takeOverKey('travelling-dek', storage);
    expect(await bundoc('files', 'restore', backup)).toMatchObject({ code: 0 });
    expect((await bundoc('files', 'verify')).output).toBe('bundoc: 4 documents in 1 project: all good\n');
    await installation.startBundoc();
    const { documents } = await view(installation.url);
    expect(documents).toMatchObject([...(before.documents as object[]), { _id: 'new', made: 'there' }]);
    expect((await write(installation.url, 'a', '{"v":"goes on"}')).status).toBe(200);
    await installation.stopBundoc();
  });

  it('moves a project whose indexes are being built, and they are built at the target', async () => {
    const admin = await installation.client(['indexing'], ['docs:read', 'docs:write', 'docs:admin']);
    const collection = '/v1/projects/indexing/collections/notes';
    const ask = async (url: string) => {
      const body = JSON.stringify({ where: { n: { $lt: 5 } }, orderBy: [{ field: 'n' }], explain: true });
      const answer = await call(url, `${collection}/query`, { method: 'POST', token: admin, body });
      return answer.json() as { documents: { n: number }[]; explain: { index: string | null } };
    };
    const operations = Array.from({ length: 1_000 }, (_, at) => ({
      op: 'put',
      collection: 'notes',
      id: `d${at}`,
      document: { n: 999 - at, mail: `m${at}` },
    }));
    await installation.stopBundoc();
    const there = await (async () => {
      const environment = { ...environmentOf('files'), BUNDOC_MOVE_TO: onPostgres };
      await using service = await startConfiguredBundoc(environment);
      for (const from of [0, 500]) {
        const body = JSON.stringify({ operations: operations.slice(from, from + 500) });
        const written = await call(service.url, '/v1/projects/indexing/batch', {
          method: 'POST',
          token: admin,
          body,
        });
        expect(written.status).toBe(200);
      }
      const body = '{"indexes":[{"fields":["n"]},{"fields":["mail"],"unique":true}]}';
      const defined = await call(service.url, collection, { method: 'PUT', token: admin, body });
      expect(defined.text).toContain('"state":"building"');
      return await bundocCommand({ BUNDOC_TOKEN: admin }, [
        'move',
        'indexing',
        '--url',
        service.url,
        '--json',
      ]);
    })();
    expect(there).toMatchObject({ code: 0 });
    await using node = await startConfiguredBundoc(environmentOf(onPostgres));
    const expected = [0, 1, 2, 3, 4];
    expect((await ask(node.url)).documents.map(({ n }) => n)).toEqual(expected);
    await expect
      .poll(async () => (await call(node.url, collection, { token: admin })).text)
      .not.toContain('"state":"building"');
    const { documents, explain } = await ask(node.url);
    expect([documents.map(({ n }) => n), explain.index]).toEqual([expected, 'n']);
    const twice = { method: 'PUT', token: admin, body: '{"mail":"m7"}' };
    expect((await call(node.url, `${collection}/documents/new`, twice)).status).toBe(409);
    expect(await bundoc(onPostgres, 'verify', 'indexing')).toMatchObject({ code: 0 });
  });

  it('leaves a damaged project where it is', async () => {
    const docs = join(installation.dataDir, 'projects', 'travelling', 'docs');
    // All: the next start writes one of them again from the log.
    for (const entry of readdirSync(docs, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const path = join(entry.parentPath, entry.name);
      const bytes = readFileSync(path);
      bytes[bytes.length - 1] = Number(bytes.at(-1)) ^ 1;
      writeFileSync(path, bytes);
    }
    const fresh = patientUrl((await server.createDatabase('fresh')).url);
    const admin = await installation.client(['travelling'], ['docs:admin']);
    expect(await moveOnline('travelling', admin, fresh)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('does not open'),
    });
    expect(await server.sql('SELECT count(*) FROM bundoc.projects', 'fresh')).toBe('0');
  });

  it('through the service moves a project in use with every acknowledged write, and ends its change feed', async () => {
    await installation.stopBundoc();
    const there = (await server.createDatabase('online')).url;
    const admin = await installation.client(['busy', 'both', 'none'], ['docs:admin']);
    await using service = await startBundocProcess({ ...environmentOf('files'), BUNDOC_MOVE_TO: there });
    const online = (url: string, project: string, by = admin) =>
      bundocCommand({ BUNDOC_TOKEN: by }, ['move', project, '--url', url, '--json']);
    const pathOf = (project: string, id: string) =>
      `/v1/projects/${project}/collections/notes/documents/${id}`;
    const putIn = (url: string, project: string, id: string, body: string) =>
      call(url, pathOf(project, id), { method: 'PUT', token, body });
    const get = (url: string, id: string) => call(url, pathOf('busy', id), { token });

    const operations = Array.from({ length: 300 }, (_, n) => ({
      op: 'put',
      collection: 'notes',
      id: `before-${n}`,
      document: { n, pad: 'x'.repeat(500) },
    }));
    const filled = await call(service.url, '/v1/projects/busy/batch', {
      method: 'POST',
      token,
      body: JSON.stringify({ operations }),
    });
    expect(filled.status).toBe(200);
    await putIn(service.url, 'both', 'a', '{"here":1}');
    for (const [project, by, why] of [
      ['busy', token, 'forbidden'],
      ['none', admin, 'project_not_found'],
      ['..', admin, ''],
    ] as const)
      expect(await online(service.url, project, by)).toMatchObject({
        code: 2,
        stderr: expect.stringContaining(why),
      });

    using feed = await EventReader.open(`${service.url}/v1/projects/busy/changes?since=now`, token);
    const acknowledged = new Map<string, { body: string; rev: unknown }>();
    const unexpected: string[] = [];
    let writes = 0;
    let reads = 0;
    /** @returns false once the project has left this node. */
    const isHere = (status: number, text: string) => {
      if (text.includes('"project_elsewhere"')) return false;
      // A write that is refused while the project moves was not applied.
      if (status >= 300 && !text.includes('"project_moving"')) unexpected.push(text);
      return true;
    };
    const writing = [0, 1, 2].map(async (worker) => {
      for (let n = 0; ; n++) {
        const [id, body] = [`w${worker}-${n % 7}`, `{ "n": ${n}.10 }`];
        const { status, text } = await putIn(service.url, 'busy', id, body);
        if (!isHere(status, text)) return;
        if (status >= 300) continue;
        acknowledged.set(id, { body, rev: JSON.parse(text)['_rev'] });
        writes++;
      }
    });
    const reading = async () => {
      for (;;) {
        const { status, text } = await get(service.url, `before-${reads % 300}`);
        if (!isHere(status, text)) return;
        if (status !== 200 && !text.includes('"project_moving"')) unexpected.push(text);
        reads++;
      }
    };
    const busy = startInBackground(Promise.all([...writing, reading()]));
    await expect.poll(() => Math.min(writes, reads, feed.changes.length)).toBeGreaterThan(20);

    const done = await online(service.url, 'busy');
    expect(done).toMatchObject({ code: 0, stderr: '' });
    const moved = JSON.parse(done.stdout);
    expect(moved).toEqual({ moved: 'busy', to: `${new URL(there).host}/online`, kept: expect.any(String) });
    await busy;
    expect(unexpected).toEqual([]);
    await expect.poll(() => feed.isEnded).toBe(true);
    const idThere = await server.sql("SELECT file::json ->> 'id' FROM bundoc.storage", 'online');
    for (const answer of [
      await get(service.url, 'before-1'),
      await putIn(service.url, 'busy', 'late', '{}'),
    ]) {
      expect([answer.status, answer.json()['code']]).toEqual([409, 'project_elsewhere']);
      expect(answer.json()['storage']).toBe(idThere);
    }
    await expect(EventReader.open(`${service.url}/v1/projects/busy/changes`, token)).rejects.toThrow(
      'project_elsewhere',
    );
    expect(readdirSync(join(installation.dataDir, 'projects', 'busy'))).toEqual(['move.mark']);
    expect(readdirSync(join(installation.dataDir, 'moved'))).toContain(moved.kept);
    expect(JSON.parse((await online(service.url, 'busy')).stdout)).toEqual(moved);

    await using node = await startConfiguredBundoc(environmentOf(there));
    for (const [id, { body, rev }] of acknowledged) {
      const read = await get(node.url, id);
      expect([id, read.json()['_rev'], read.text.endsWith(body.slice(1))]).toEqual([id, rev, true]);
    }
    for (const { id } of operations) expect((await get(node.url, id)).status).toBe(200);
    // Readers of the change feed continue at their position.
    using followed = await EventReader.open(`${node.url}/v1/projects/busy/changes`, token, {
      'last-event-id': feed.lastEventId,
    });
    expect((await putIn(node.url, 'busy', 'goes-on', '{}')).status).toBe(201);
    await expect.poll(() => followed.changes.map(({ _id }) => _id)).toContain('goes-on');

    expect(await online(node.url, 'busy')).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/move_refused.*BUNDOC_MOVE_TO is not set/),
    });
    // The target does not create a project that is still in this storage.
    const twin = await putIn(node.url, 'both', 'a', '{"there":1}');
    expect([twin.status, twin.json()['code']]).toEqual([409, 'project_elsewhere']);
    expect((await call(service.url, pathOf('both', 'a'), { token })).json()['here']).toBe(1);
    expect(await service.stop()).toBe(0);
  });

  it('can be completed by the same command after a crash that follows the handover, and the target serves it at once', async () => {
    const there = (await server.createDatabase('half')).url;
    const admin = await installation.client(['half', 'none'], ['docs:admin']);
    const [writer, onFiles] = [await installation.client(['half']), environmentOf('files')];
    const DOCUMENT = '/v1/projects/half/collections/notes/documents/a';
    const folder = join(installation.dataDir, 'projects', 'half');
    const start = () => startConfiguredBundoc({ ...onFiles, BUNDOC_MOVE_TO: there });
    const move = async (url: string): Promise<{ kept: string }> => {
      const answer = await bundocCommand({ BUNDOC_TOKEN: admin }, ['move', 'half', '--url', url, '--json']);
      return JSON.parse(answer.stdout);
    };
    let moved: { kept: string };
    {
      await using service = await start();
      await call(service.url, DOCUMENT, { method: 'PUT', token: writer, body: '{"v":1}' });
      moved = await move(service.url);
    }
    // The state after a crash before the content was set aside.
    const kept = join(installation.dataDir, 'moved', moved.kept);
    for (const entry of readdirSync(kept)) renameSync(join(kept, entry), join(folder, entry));
    await using node = await startConfiguredBundoc(environmentOf(there));
    await using service = await start();
    expect((await call(node.url, DOCUMENT, { token: writer })).json()).toMatchObject({ v: 1 });
    for (const method of ['GET', 'PUT']) {
      const body = method === 'PUT' ? { body: '{}' } : {};
      const answer = await call(service.url, DOCUMENT, { method, token: writer, ...body });
      expect([answer.status, answer.json()['code']]).toEqual([409, 'project_elsewhere']);
    }
    expect(await move(service.url)).toEqual(moved);
    expect(readdirSync(folder)).toEqual(['move.mark']);
    const result = await bundocCommand({ BUNDOC_TOKEN: admin }, ['move', 'half', '--url', service.url]);
    expect(result.stderr).toContain(
      `kept in moved/${moved.kept}: remove it once a backup of the project where it is now is checked`,
    );
  });
});
