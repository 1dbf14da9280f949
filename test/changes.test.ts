import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EventReader } from './support/event-reader.ts';
import { call, Installation } from './support/installation.ts';
import { MovedClock } from './support/moved-clock.ts';

const clock = new MovedClock();
let installation: Installation;
let token: string;
beforeAll(async () => {
  installation = await Installation.start({ clock });
  token = await installation.client();
});
afterAll(() => installation[Symbol.asyncDispose]());

const changesPath = (project: string, query = '') => `/v1/projects/${project}/changes${query}`;
const documentPath = (project: string, id: string, collection = 'notes') =>
  `/v1/projects/${project}/collections/${collection}/documents/${id}`;
const get = (path: string, headers: Record<string, string> = {}) =>
  call(installation.url, path, { token, headers });
const put = async (project: string, id: string, body = '{}', collection = 'notes') => {
  const path = documentPath(project, id, collection);
  const answer = await call(installation.url, path, { method: 'PUT', token, body });
  expect([200, 201]).toContain(answer.status);
};
const remove = (project: string, id: string) =>
  call(installation.url, documentPath(project, id), { method: 'DELETE', token });
const page = async (project: string, query = '') =>
  (await get(changesPath(project, query))).json() as unknown as Page;
const follow = (project: string, query = '', headers: Record<string, string> = {}, by = token) =>
  EventReader.open(`${installation.url}${changesPath(project, query)}`, by, headers);
const idsOf = (changes: readonly Record<string, unknown>[]) => changes.map(({ _id }) => _id);

interface Page {
  readonly changes: Record<string, unknown>[];
  readonly since: string;
  readonly more?: true;
}

describe('a page of changes', () => {
  it('a page of changes of one collection advances past any number of changes in other collections', async () => {
    for (let n = 0; n < 5; n++) await put('one', `other-${n}`, '{}', 'other');
    await put('one', 'a');
    const first = await page('one', '?collection=notes&limit=1');
    expect(idsOf(first.changes)).toEqual(['a']);
    await put('one', 'other-9', '{}', 'other');
    const second = await page('one', `?collection=notes&since=${first.since}`);
    expect(second).toEqual({ changes: [], since: (await page('one')).since });
  });

  it('says that more changes may follow when it was cut short', async () => {
    for (const id of ['a', 'b']) await put('more', id);
    expect((await page('more', '?limit=1')).more).toBe(true);
    expect((await page('more')).more).toBeUndefined();
  });

  it('includes documents on request, exact except for line breaks, and none for a deletion', async () => {
    await put('docs', 'a', '{\n  "n": 12345678901234567890, "t": "x\\ny" }');
    await put('docs', 'b');
    await remove('docs', 'b');
    const stored = (await get(documentPath('docs', 'a'))).text;
    const { text } = await get(changesPath('docs', '?include=doc'));
    expect(text).toContain(`"doc":${stored.replace('\n', ' ')}}`);
    const { changes } = await page('docs', '?include=doc');
    expect(changes.map((change) => ['doc' in change, change['deleted']])).toEqual([
      [true, undefined],
      [false, true],
    ]);
  });

  it('a page of changes as NDJSON has one change a line, and ends with the position to continue from', async () => {
    for (const id of ['a', 'b']) await put('lines', id);
    const answer = await get(changesPath('lines'), { accept: 'application/x-ndjson' });
    expect(answer.headers['content-type']).toBe('application/x-ndjson; charset=utf-8');
    const lines = answer.text.split('\n').map((line) => (line === '' ? '' : JSON.parse(line)));
    const json = await page('lines');
    expect(lines).toEqual([...json.changes, { since: json.since }, '']);
  });

  it('can begin at the current end of the feed', async () => {
    await put('now', 'a');
    const { changes, since } = await page('now', '?since=now');
    expect(changes).toEqual([]);
    await put('now', 'b');
    expect(idsOf((await page('now', `?since=${since}`)).changes)).toEqual(['b']);
  });

  it.each(['wait=51', 'wait=x', 'include=x', 'collection=a%20b', 'since=then', 'feed=longpoll'])(
    'refuses %s',
    async (query) => {
      const answer = await get(changesPath('now', `?${query}`));
      expect([answer.status, answer.json()['code']]).toEqual([400, 'invalid_request']);
    },
  );
});

describe('a page of changes that is waited for', () => {
  it('is answered at the next change of its collection, and not at a change of another collection', async () => {
    await put('poll', 'a');
    const { since } = await page('poll');
    const waiting = page('poll', `?collection=notes&wait=50&since=${since}`);
    await put('poll', 'x', '{}', 'other');
    await put('poll', 'b');
    expect(idsOf((await waiting).changes)).toEqual(['b']);
  });

  it('holds no places and no memory while it waits, even for a client with an unread answer', async () => {
    const megabyte = JSON.stringify('x'.repeat(1_000_000));
    for (let n = 0; n < 16; n++) await put('large', `a-${n}`, `{"text":${megabyte}}`);
    const held = async (share: string): Promise<number> => {
      const found = new RegExp(`^bundoc_share_held\\{share="${share}"\\} (\\d+)$`, 'm');
      return Number(found.exec(await installation.metrics())?.[1]);
    };
    const { port } = new URL(installation.url);
    const stalled = connect({ port: Number(port), host: '127.0.0.1' }).pause();
    stalled.write(
      `GET ${documentPath('large', '').slice(0, -1)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n\r\n`,
    );
    await expect.poll(() => held('bytes')).toBeGreaterThan(16_000_000);
    await expect.poll(() => held('places')).toBe(0);
    const untaken = await held('bytes');
    const poll = get(changesPath('large', '?since=now&include=doc&wait=50'));
    await expect.poll(() => held('streams')).toBe(1);
    expect([await held('bytes'), await held('places')]).toEqual([untaken, 0]);
    stalled.destroy();
    await put('large', 'b');
    expect((await poll).status).toBe(200);
  });

  it('is empty when its time is over', async () => {
    const { since } = await page('poll');
    expect(await page('poll', `?wait=1&since=${since}`)).toEqual({ changes: [], since });
  });

  it('is answered at once when a change is already available', async () => {
    expect(idsOf((await page('poll', '?wait=50')).changes)).toContain('a');
  });
});

describe('a stream of changes', () => {
  it('sends each change and deletion in order, with an id to continue from', async () => {
    await put('stream', 'a');
    using reader = await follow('stream');
    expect(reader.headers['content-type']).toBe('text/event-stream');
    await reader.until(() => reader.changes.length === 1);
    await put('stream', 'b', '{"v":1}', 'other');
    await remove('stream', 'a');
    await reader.until(() => reader.changes.length === 3);
    expect(reader.changes).toMatchObject([
      { _id: 'a', _collection: 'notes' },
      { _id: 'b', _collection: 'other' },
      { _id: 'a', deleted: true },
    ]);
    expect((await page('stream', `?since=${reader.lastEventId}`)).changes).toEqual([]);
  });

  it('continues after the last event that its reader received, even after a restart, and misses nothing', async () => {
    await put('resume', 'a');
    const first = await follow('resume');
    await first.until(() => first.changes.length === 1);
    await put('resume', 'b');
    await first.until(() => first.changes.length === 2);
    const id = first.lastEventId;
    await installation.stopBundoc();
    await first.ended();
    await installation.startBundoc();
    await put('resume', 'c');
    // As a browser does: it sends its first URL again, with the id of the last event.
    using second = await follow('resume', '?since=now', { 'last-event-id': id });
    await second.until(() => second.changes.length === 1);
    expect(idsOf(second.changes)).toEqual(['c']);
  });

  it('a stream of changes of one collection sends no other changes, and its heartbeats carry the position', async () => {
    await put('filter', 'x', '{}', 'other');
    using reader = await follow('filter', '?collection=notes');
    await reader.until(() => reader.events.length > 0);
    await put('filter', 'y', '{}', 'other');
    const { since } = await page('filter');
    await expect
      .poll(
        () => {
          clock.movedMs += 20_000;
          return reader.lastEventId;
        },
        { interval: 300 },
      )
      .toBe(since);
    await put('filter', 'a');
    await reader.until(() => reader.changes.length > 0);
    expect(idsOf(reader.changes)).toEqual(['a']);
  });

  it('includes documents on request, with or without line breaks', async () => {
    await put('with', 'a', '{\r\n"v": 1.10\n}');
    using reader = await follow('with', '?include=doc');
    await reader.until(() => reader.changes.length === 1);
    const event = reader.events.find(({ event: type }) => type === 'change');
    expect(event?.data).toContain('"v": 1.10 }}');
  });

  it('gives many readers of every kind the same changes while documents are written', async () => {
    await put('many', 'begin');
    const readers = await Promise.all(
      Array.from({ length: 12 }, (_, n) => follow('many', n % 3 === 0 ? '?include=doc' : '')),
    );
    const ids = Array.from({ length: 200 }, (_, n) => `d${n}`);
    await Promise.all(ids.map((id) => put('many', id)));
    for (const reader of readers) await reader.until(() => reader.changes.length === 201);
    const expected = idsOf((await page('many', '?limit=1000')).changes);
    for (const reader of readers) {
      expect(idsOf(reader.changes)).toEqual(expected);
      reader[Symbol.dispose]();
    }
  });

  it('waits while its project is closed, and continues once it is opened again', async () => {
    await put('idle', 'a');
    const long = await installation.issue({
      sub: 'long',
      typ: 'client',
      scope: ['docs:read', 'docs:admin'],
      projects: ['*'],
      ttl_s: 86_400,
    });
    using reader = await follow('idle', '?since=now', {}, long);
    await reader.until(() => reader.events.length > 0);
    const { movedMs } = clock;
    const open = async () => {
      // Repeated: where other nodes may write, the project is reopened a second after it closes, which a busy
      // machine may miss.
      clock.movedMs += 700_000;
      return /^bundoc_projects_open (\d+)$/m.exec(await installation.metrics())?.[1];
    };
    await expect.poll(open, { interval: 500 }).toBe('0');
    clock.movedMs = movedMs + 700_000;
    await put('idle', 'b');
    await reader.until(() => reader.changes.length === 1);
    expect(idsOf(reader.changes)).toEqual(['b']);
  });

  it('ends when its token expires, and cannot begin again with that token', async () => {
    await put('expiry', 'a');
    const short = await installation.issue({
      sub: 'short',
      typ: 'client',
      scope: ['docs:read'],
      projects: ['*'],
      ttl_s: Math.ceil(clock.movedMs / 1_000) + 600,
    });
    using reader = await follow('expiry', '', {}, short);
    await reader.until(() => reader.changes.length === 1);
    clock.movedMs += 601_000;
    await reader.ended();
    await expect(follow('expiry', '', {}, short)).rejects.toThrow('unauthenticated');
    clock.movedMs -= 601_000;
  });

  it.each([
    ['?limit=1', {}],
    ['?wait=1', {}],
    ['', { 'last-event-id': 'x' }],
  ])('refuses %s %j before it begins', async (query, headers) => {
    await put('refuse', 'a');
    await expect(follow('refuse', query, headers as Record<string, string>)).rejects.toThrow(
      'invalid_request',
    );
  });

  it('a stream of a missing project is 404, and of a project that the token does not cover 403', async () => {
    await expect(follow('nowhere')).rejects.toThrow('project_not_found');
    const other = await installation.client(['other']);
    await expect(follow('stream', '', {}, other)).rejects.toThrow('forbidden');
  });
});
