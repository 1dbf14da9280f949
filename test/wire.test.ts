import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { call, Installation } from './support/installation.ts';
import { bytesOf, exchange } from './support/raw-requests.ts';

const COLLECTION = '/v1/projects/wire/collections/notes';
const DOCUMENTS = `${COLLECTION}/documents`;

let installation: Installation;
let token: string;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.client(['wire'], ['docs:read', 'docs:write', 'docs:admin']);
  await call(installation.url, `${DOCUMENTS}/first`, { method: 'PUT', token, body: '{"v":1}' });
});
afterAll(() => installation[Symbol.asyncDispose]());

const portOf = (url: string) => Number(new URL(url).port);
const raw = (method: string, path: string, body?: string) =>
  bytesOf({
    method,
    path,
    headers: [
      `Authorization: Bearer ${token}`,
      ...(body === undefined ? [] : ['Content-Type: application/json']),
    ],
    ...(body === undefined ? {} : { body }),
  });
const whole = () => 1;

describe('requests on one connection', () => {
  it('requests on one connection that create, read, delete and read a document take effect in order', async () => {
    const path = `${DOCUMENTS}/piped`;
    const requests = [raw('PUT', path, '{}'), raw('GET', path), raw('DELETE', path), raw('GET', path)];
    const answers = await exchange(portOf(installation.url), requests, '', whole);
    expect(answers.map(({ status }) => status)).toEqual([201, 200, 204, 404]);
  });

  it('keep their answers when invalid HTTP follows: 201, then 400', async () => {
    const requests = [raw('PUT', `${DOCUMENTS}/surplus`, '{}')];
    const answers = await exchange(portOf(installation.url), requests, 'surplus\r\n\r\n', whole);
    expect(answers.map(({ status }) => status)).toEqual([201, 400]);
    expect(answers[1]?.headers['connection']).toBe('close');
    expect((await call(installation.url, `${DOCUMENTS}/surplus`, { token })).status).toBe(200);
  });
});

describe('If-Match compares strongly', () => {
  it('If-Match with the weak tag of the current revision of a document is 412, and nothing is written', async () => {
    const path = `${DOCUMENTS}/first`;
    const { headers, text } = await call(installation.url, path, { token });
    const etag = String(headers['etag']);
    for (const method of ['PUT', 'DELETE', 'GET']) {
      const refused = await call(installation.url, path, {
        method,
        token,
        headers: { 'if-match': `W/${etag}` },
        ...(method === 'PUT' ? { body: '{"v":2}' } : {}),
      });
      expect([method, refused.status]).toEqual([method, 412]);
    }
    expect((await call(installation.url, path, { token })).text).toBe(text);
    const listed = { 'if-match': `, ,W/"x",, ${etag} ,` };
    expect((await call(installation.url, path, { token, headers: listed })).status).toBe(200);
    expect(
      (await call(installation.url, path, { token, headers: { 'if-none-match': `W/${etag}` } })).status,
    ).toBe(304);
  });

  it('If-Match with the weak tag of the current revision of a key is 412', async () => {
    const admin = await installation.issue({
      sub: 'admin',
      typ: 'client',
      scope: ['kms:create_key', 'kms:read_key', 'kms:manage_key'],
      keys: ['*'],
    });
    const kms = installation.kms.apiUrl;
    await call(kms, '/v1/keys', {
      method: 'POST',
      token: admin,
      body: '{"name":"wire-key","type":"aes-256"}',
    });
    const etag = String((await call(kms, '/v1/keys/wire-key', { token: admin })).headers['etag']);
    const disable = (tags: string) =>
      call(kms, '/v1/keys/wire-key/disable', { method: 'POST', token: admin, headers: { 'if-match': tags } });
    expect((await disable(`W/${etag}`)).status).toBe(412);
    expect((await disable(`, ${etag},`)).status).toBe(200);
  });
});

it('a repeated query parameter is refused with "is given twice"', async () => {
  const listed = await call(installation.url, `${DOCUMENTS}?limit=1&limit=2`, { token });
  expect([listed.status, listed.json()]).toMatchObject([
    400,
    { errors: [{ path: 'query.limit', message: 'is given twice' }] },
  ]);
  const audit = await installation.issue({ sub: 'a', typ: 'client', scope: ['kms:audit'] });
  const records = await call(installation.kms.apiUrl, '/v1/audit?limit=1&limit=2', { token: audit });
  expect(records.json()).toMatchObject({ errors: [{ path: 'query.limit', message: 'is given twice' }] });
});

it('the feed has the format that Accept prefers', async () => {
  const accept = 'application/json;q=0.2, application/x-ndjson;q=0.9, text/event-stream;q=0.1';
  const page = await call(installation.url, '/v1/projects/wire/changes', { token, headers: { accept } });
  expect(page.headers['content-type']).toBe('application/x-ndjson; charset=utf-8');
});

describe('HEAD', () => {
  /** The paths of all GET operations in a listener's document, with existing names. */
  async function pathsOf(url: string, names: Readonly<Record<string, string>>): Promise<string[]> {
    const document = (await call(url, '/openapi.json')).json() as {
      paths: Record<string, Record<string, unknown>>;
    };
    return Object.entries(document.paths)
      .filter(([, operations]) => operations['get'] !== undefined)
      .map(([path]) => path.replace(/\{(\w+)\}/g, (_all, name: string) => names[name] ?? name));
  }

  it('is answered like GET, without a body, on every path of Bundoc', async () => {
    const paths = await pathsOf(installation.url, { project: 'wire', collection: 'notes', id: 'first' });
    expect(paths.length).toBeGreaterThan(8);
    for (const path of paths) {
      const head = await call(installation.url, path, { method: 'HEAD', token });
      const got = await call(installation.url, path, { token });
      expect([path, head.status, head.text]).toEqual([path, got.status, '']);
      expect(head.headers['content-type']).toBe(got.headers['content-type']);
    }
    const headers = { accept: 'text/event-stream' };
    const stream = await call(installation.url, '/v1/projects/wire/changes', {
      method: 'HEAD',
      token,
      headers,
    });
    expect([stream.status, stream.headers['content-type'], stream.text]).toEqual([
      200,
      'text/event-stream',
      '',
    ]);
  });

  it('is answered on every path of BunKMS except export, where it is 405, recorded, and releases nothing', async () => {
    const service = await installation.issue({
      sub: 'svc',
      typ: 'service',
      scope: ['kms:read_key', 'kms:export_key', 'kms:audit', 'kms:admin'],
      keys: ['*'],
    });
    const url = installation.kms.internalUrl;
    const paths = await pathsOf(url, { name: 'wire-dek' });
    for (const path of paths) {
      const head = await call(url, path, { method: 'HEAD', token: service });
      if (path.startsWith('/v1/export/')) {
        expect([head.status, head.headers['allow']]).toEqual([405, 'GET']);
        continue;
      }
      expect([path, head.text]).toEqual([path, '']);
      expect([path, head.status]).not.toEqual([path, 405]);
      if (path !== '/v1/events')
        expect([path, head.status]).toEqual([path, (await call(url, path, { token: service })).status]);
    }
    expect(paths.some((path) => path.startsWith('/v1/export/'))).toBe(true);
    await expect
      .poll(async () => (await call(url, '/v1/audit?limit=500', { token: service })).text)
      .toContain('"method_not_allowed"');
    const { records } = (await call(url, '/v1/audit?limit=500', { token: service })).json() as {
      records: { action: string; outcome: string; code?: string; severity: string }[];
    };
    expect(records.filter(({ code }) => code === 'method_not_allowed')).toMatchObject([
      { action: 'key.export', outcome: 'refused', severity: 'CRITICAL' },
    ]);
  });
});

describe('a write is answered as done, whatever memory slow readers hold', () => {
  /** These documents fill a page except for some KiB. */
  const PAGE_BYTES = 16_777_216;
  const PAGE = 16;
  const BYTES = PAGE_BYTES / PAGE - 500;
  const MEMORY_BYTES = 536_870_912;
  /** They have an eighth of the memory, beside what bodies up to 64 KiB have. */
  const PAGES = MEMORY_BYTES / 8 / PAGE_BYTES;
  const OPERATIONS = 500;

  const batch = (name: string, v: string) =>
    JSON.stringify({
      operations: Array.from({ length: OPERATIONS }, (_, n) => ({
        op: 'create',
        collection: name,
        id: `${name}-${n}`,
        document: { v },
      })),
    });

  it('a write is answered as done at once with a small body, and with a large one once the readers are cut off', async () => {
    using _memory = vi.spyOn(process, 'constrainedMemory').mockReturnValue(MEMORY_BYTES);
    await using own = await Installation.start();
    const client = await own.client(['wire']);
    for (let n = 0; n < PAGE; n++)
      await call(own.url, `${DOCUMENTS}/${n}`, {
        method: 'PUT',
        token: client,
        body: `{"v":"${'x'.repeat(BYTES)}"}`,
      });
    const held = async () => /^bundoc_share_held\{share="bytes"\} (\d+)$/m.exec(await own.metrics())?.[1];
    const readers: Socket[] = [];
    for (let n = 0; n < PAGES; n++) {
      const socket = connect({ port: portOf(own.url), host: '127.0.0.1' });
      socket.on('error', () => undefined);
      await once(socket, 'connect');
      socket.pause();
      socket.write(`GET ${DOCUMENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${client}\r\n\r\n`);
      readers.push(socket);
    }
    await expect.poll(async () => Number(await held())).toBeGreaterThan(PAGES * PAGE * BYTES);
    const write = (name: string, v = '') =>
      call(own.url, '/v1/projects/wire/batch', { method: 'POST', token: client, body: batch(name, v) });
    const list = async (name: string) =>
      (
        await call(own.url, `/v1/projects/wire/collections/${name}/documents?limit=1`, { token: client })
      ).json();
    let isDone = false;
    const large = (async () => {
      // A refused write has not begun.
      for (;;) {
        const { status } = await write('large', 'x'.repeat(200));
        if (status !== 429) return status;
        expect(await list('large')).toMatchObject({ documents: [] });
      }
    })().finally(() => {
      isDone = true;
    });
    const done = await write('small');
    expect([done.status, (done.json() as { results: unknown[] }).results.length]).toEqual([200, OPERATIONS]);
    expect(isDone).toBe(false);
    expect(await large).toBe(200);
    for (const socket of readers) socket.destroy();
    await expect.poll(async () => await held()).toBe('0');
  });
});
