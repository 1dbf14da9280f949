import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { meanwhile } from '@bundoc/shared/testing/meanwhile';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bundocCommand } from './support/bundoc-command.ts';
import { BundocProcess } from './support/bundoc-process.ts';
import { EventReader } from './support/event-reader.ts';
import { call, Installation, PATIENT_BUNDOC } from './support/installation.ts';

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
    const to = ['move', 'travelling', '--to', onPostgres, '--json'];
    const there = await bundocCommand(environmentOf('files'), to);
    expect(there).toMatchObject({ code: 0 });
    const [kept] = readdirSync(join(installation.dataDir, 'moved'));
    expect(JSON.parse(there.stdout)).toEqual({ moved: 'travelling', to: expect.any(String), kept });
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
    expect(back).toMatchObject({ code: 0, output: expect.stringContaining('travelling is in ') });
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

  it('through the service takes a project that is written to and read, with all that was acknowledged, and ends its feed', async () => {
    await installation.stopBundoc();
    const there = (await server.createDatabase('online')).url;
    const admin = await installation.client(['busy', 'both', 'none'], ['docs:admin']);
    await using service = await BundocProcess.start({ ...environmentOf('files'), BUNDOC_MOVE_TO: there });
    const online = (url: string, project: string, by = admin) =>
      bundocCommand({ BUNDOC_TOKEN: by }, ['move', project, '--url', url, '--json']);
    const pathOf = (project: string, id: string) =>
      `/v1/projects/${project}/collections/notes/documents/${id}`;
    const putIn = (url: string, project: string, id: string, body: string) =>
      call(url, pathOf(project, id), { method: 'PUT', token, body });
    const get = (url: string, id: string) => call(url, pathOf('busy', id), { token });

    const operations = Array.from({ length: 300 }, (_, n) => ({
      ...{ op: 'put', collection: 'notes', id: `before-${n}`, document: { n, pad: 'x'.repeat(500) } },
    }));
    const filled = await call(service.url, '/v1/projects/busy/batch', {
      ...{ method: 'POST', token, body: JSON.stringify({ operations }) },
    });
    expect(filled.status).toBe(200);
    await putIn(service.url, 'both', 'a', '{"here":1}');
    const offline = await bundoc('files', 'move', 'busy', '--to', there);
    expect(offline).toEqual({ code: 2, output: expect.stringContaining('--url') });
    expect(await bundoc('files', 'move', 'busy', '--to', there, '--url', service.url)).toMatchObject({
      code: 2,
    });
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
    /** @returns false from the moment on that the project is not here. */
    const isHere = (status: number, text: string) => {
      if (text.includes('"project_moved"')) return false;
      // What is refused while it changes hands was not written.
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
        if (status !== 200) unexpected.push(text);
        reads++;
      }
    };
    const busy = meanwhile(Promise.all([...writing, reading()]));
    await expect.poll(() => Math.min(writes, reads, feed.changes.length)).toBeGreaterThan(20);

    const done = await online(service.url, 'busy');
    expect(done).toMatchObject({ code: 0, stderr: '' });
    const moved = JSON.parse(done.stdout);
    expect(moved).toEqual({ moved: 'busy', to: `${new URL(there).host}/online`, kept: expect.any(String) });
    await busy;
    expect(unexpected).toEqual([]);
    await expect.poll(() => feed.isEnded).toBe(true);
    for (const answer of [
      await get(service.url, 'before-1'),
      await putIn(service.url, 'busy', 'late', '{}'),
    ]) {
      expect([answer.status, answer.json()['code']]).toEqual([503, 'project_moved']);
      expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
    }
    await expect(EventReader.open(`${service.url}/v1/projects/busy/changes`, token)).rejects.toThrow(
      'project_moved',
    );
    expect(readdirSync(join(installation.dataDir, 'projects', 'busy'))).toEqual(['move.json']);
    expect(readdirSync(join(installation.dataDir, 'moved'))).toContain(moved.kept);
    expect(JSON.parse((await online(service.url, 'busy')).stdout)).toEqual(moved);

    await using node = await BundocProcess.start(environmentOf(there));
    for (const [id, { body, rev }] of acknowledged) {
      const read = await get(node.url, id);
      expect([id, read.json()['_rev'], read.text.endsWith(body.slice(1))]).toEqual([id, rev, true]);
    }
    for (const { id } of operations) expect((await get(node.url, id)).status).toBe(200);
    // Whoever followed goes on where they were.
    using followed = await EventReader.open(`${node.url}/v1/projects/busy/changes`, token, {
      'last-event-id': feed.lastEventId,
    });
    expect((await putIn(node.url, 'busy', 'goes-on', '{}')).status).toBe(201);
    await expect.poll(() => followed.changes.map(({ _id }) => _id)).toContain('goes-on');

    expect(await online(node.url, 'busy')).toMatchObject({
      ...{ code: 2, stderr: expect.stringMatching(/move_refused.*BUNDOC_MOVE_TO is not set/) },
    });
    // One that fails on its way says why, and stays where it was.
    await putIn(node.url, 'both', 'a', '{"there":1}');
    expect(await online(service.url, 'both')).toMatchObject({
      ...{ code: 2, stderr: expect.stringMatching(/move_refused.*in the database already/) },
    });
    expect((await call(service.url, pathOf('both', 'a'), { token })).json()['here']).toBe(1);
    expect(await service.stop()).toBe(0);
  });

  it('is given up through the service, or without it, and finished by it where one died once the project had changed hands', async () => {
    const name = 'given_up';
    const there = (await server.createDatabase(name)).url;
    const admin = await installation.client(['half', 'none'], ['docs:admin']);
    const [writer, onFiles] = [await installation.client(['half']), environmentOf('files')];
    const DOCUMENT = '/v1/projects/half/collections/notes/documents/a';
    const start = () => BundocProcess.start({ ...onFiles, BUNDOC_MOVE_TO: there });
    const giveUp = (url: string, project: string, by: string) =>
      bundocCommand({ BUNDOC_TOKEN: by }, ['move', project, '--abandon', '--url', url, '--json']);
    const folder = join(installation.dataDir, 'projects', 'half');
    let moved: { kept: string };
    {
      await using service = await start();
      const { url } = service;
      await call(url, DOCUMENT, { method: 'PUT', token: writer, body: '{"v":1}' });
      for (const [project, by, why] of [
        ['half', writer, 'forbidden'],
        ['none', admin, 'project_not_found'],
      ] as const)
        expect(await giveUp(url, project, by)).toMatchObject({
          code: 2,
          stderr: expect.stringContaining(why),
        });
      const done = { code: 0, stdout: '{"abandoned":"half"}\n' };
      expect(await giveUp(url, 'half', admin), 'where none was begun').toMatchObject(done);
      const mark = { moving: 'half', format: 1, move: randomUUID(), state: 'incoming' };
      const since = new Date().toISOString();
      // As one that was cut short has left it.
      const reserved = `INSERT INTO bundoc.projects (project, file) VALUES ('half', '${JSON.stringify({ ...mark, since })}\n')`;
      await server.sql(reserved, name);
      expect(await giveUp(url, 'half', admin)).toMatchObject(done);
      const stateThere = () => server.sql(`SELECT (file::json) ->> 'state' FROM bundoc.projects`, name);
      expect(await stateThere()).toBe('moved');
      expect((await call(url, DOCUMENT, { token: writer })).json()).toMatchObject({ v: 1 });
      await service.stop();
      await server.sql(`UPDATE bundoc.projects SET file = replace(file, 'moved', 'incoming')`, name);
      const here = ['move', 'half', '--abandon', '--to', there, '--json'];
      expect(await bundocCommand(onFiles, here)).toMatchObject(done);
      expect(await stateThere()).toBe('moved');
    }
    {
      await using service = await start();
      const answer = await bundocCommand({ BUNDOC_TOKEN: admin }, [
        'move',
        'half',
        '--url',
        service.url,
        '--json',
      ]);
      moved = JSON.parse(answer.stdout);
      expect(await giveUp(service.url, 'half', admin)).toMatchObject({
        ...{ code: 2, stderr: expect.stringMatching(/move_refused.*changed hands/) },
      });
      await service.stop();
    }
    // As a service has left it that died when it had marked the folder.
    const kept = join(installation.dataDir, 'moved', moved.kept);
    for (const entry of readdirSync(kept)) renameSync(join(kept, entry), join(folder, entry));
    const incoming = readFileSync(join(folder, 'move.json'), 'utf8').replace('"moved"', '"incoming"');
    await server.sql(`UPDATE bundoc.projects SET file = '${incoming}'`, name);
    await using node = await BundocProcess.start(environmentOf(there));
    const atNode = () => call(node.url, DOCUMENT, { token: writer });
    expect((await atNode()).json()['code']).toBe('project_moving');
    await using service = await start();
    await expect.poll(async () => (await atNode()).json()).toMatchObject({ v: 1 });
    await expect.poll(() => readdirSync(folder)).toEqual(['move.json']);
    expect((await call(service.url, DOCUMENT, { token: writer })).json()['code']).toBe('project_moved');
    // Out of PostgreSQL nothing is reserved by now, and the project is where it was.
    await service.stop();
    const out = ['move', 'half', '--abandon', '--to', 'files', '--json'];
    expect(await bundocCommand(environmentOf(there), out)).toMatchObject({ code: 0 });
    expect((await atNode()).json()).toMatchObject({ v: 1 });
  });
});
