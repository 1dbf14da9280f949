import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EventReader } from './support/event-reader.ts';
import { call, Installation } from './support/installation.ts';

let installation: Installation;
let token: string;
let auditor: string;
beforeAll(async () => {
  installation = await Installation.start();
  token = await installation.client();
  auditor = await installation.issue({ sub: 'auditor', typ: 'client', scope: ['kms:audit'] });
  for (const project of ['b', 'a', 'c-1', 'd'])
    await call(installation.url, `/v1/projects/${project}/collections/notes/documents/x`, {
      method: 'PUT',
      token,
      body: '{"v":1}',
    });
});
afterAll(() => installation[Symbol.asyncDispose]());

const list = async (query = '', who = token) => {
  const answer = await call(installation.url, `/v1/projects${query}`, { token: who });
  expect(answer.status).toBe(200);
  const { projects, next_cursor: cursor } = answer.json() as {
    projects: { project: string }[];
    next_cursor?: string;
  };
  return { ids: projects.map(({ project }) => project), cursor };
};

describe('GET /v1/projects', () => {
  it('lists the projects by id, page by page', async () => {
    expect(await list()).toEqual({ ids: ['a', 'b', 'c-1', 'd'], cursor: undefined });
    const first = await list('?limit=3');
    expect(first.ids).toEqual(['a', 'b', 'c-1']);
    expect(await list(`?limit=3&cursor=${first.cursor}`)).toEqual({ ids: ['d'], cursor: undefined });
    expect((await list('?limit=4')).cursor).toBeUndefined();
  });

  it('lists only existing projects that the token is for', async () => {
    const some = await installation.client(['d', 'none', 'b']);
    expect(await list('', some)).toEqual({ ids: ['b', 'd'], cursor: undefined });
    const first = await list('?limit=1', some);
    expect(first.ids).toEqual(['b']);
    expect((await list(`?limit=1&cursor=${first.cursor}`, some)).ids).toEqual(['d']);
    expect((await list('', await installation.client(['none']))).ids).toEqual([]);
  });

  it('does not list the remains of an interrupted creation', async () => {
    await installation.stored.cutCreationShort('cut-short');
    expect((await list()).ids).not.toContain('cut-short');
  });

  it('finds projects by the prefix of their ids, page by page', async () => {
    expect((await list('?prefix=c')).ids).toEqual(['c-1']);
    expect((await list('?prefix=C-1')).ids).toEqual(['c-1']);
    expect((await list('?prefix=none')).ids).toEqual([]);
    expect((await list('?prefix=b&cursor=b')).ids).toEqual([]);
    expect((await list('?prefix=a', await installation.client(['b', 'd']))).ids).toEqual([]);
  });

  it('includes a summary of each project without opening it or fetching its key', async () => {
    const summaries = async () => {
      const answer = await call(installation.url, '/v1/projects?include=summary', { token });
      const { projects } = answer.json() as { projects: { project: string; summary?: object }[] };
      return new Map(projects.map(({ project, summary }) => [project, summary]));
    };
    expect((await summaries()).get('a')).toMatchObject({ documents: 1, key_version: 1, open: true });
    expect((await summaries()).get('a')).toHaveProperty('key_until');
    const exports = async () => {
      const audit = await call(installation.kms.apiUrl, '/v1/audit?severity=CRITICAL&limit=500', {
        token: auditor,
      });
      return (audit.json()['records'] as { action: string }[]).filter(({ action }) => action === 'key.export')
        .length;
    };
    await installation.stopBundoc();
    await installation.startBundoc();
    const before = await exports();
    for (const [project, summary] of await summaries()) {
      expect(summary, project).toMatchObject({ open: false });
      expect(summary, project).not.toHaveProperty('key_until');
    }
    expect(await exports()).toBe(before);
    expect((await call(installation.url, '/v1/projects', { token })).json()['projects']).toContainEqual({
      project: 'a',
    });
  });

  it.each(['?limit=0', '?cursor=..%2Fx', '?cursor=', '?after=a', '?prefix=..%2F', '?include=all'])(
    'refuses %s',
    async (query) => {
      const answer = await call(installation.url, `/v1/projects${query}`, { token });
      expect([answer.status, answer.json()['code']]).toEqual([400, 'invalid_request']);
    },
  );

  it('requires a token that may read', async () => {
    const writer = await installation.client(['*'], ['docs:write']);
    expect((await call(installation.url, '/v1/projects')).status).toBe(401);
    expect((await call(installation.url, '/v1/projects', { token: writer })).status).toBe(403);
  });
});

describe('GET /v1/projects/{project}', () => {
  const info = async (project: string, who = token) =>
    (await call(installation.url, `/v1/projects/${project}`, { token: who })).json();

  it('returns the size of the project, and the versions of its key in use', async () => {
    for (const id of ['y', 'z'])
      await call(installation.url, `/v1/projects/b/collections/other/documents/${id}`, {
        method: 'PUT',
        token,
        body: '{"v":1}',
      });
    await call(installation.url, '/v1/projects/b/collections/other/documents/y', { method: 'DELETE', token });
    const text = (await call(installation.url, '/v1/projects/b/collections/other/documents/z', { token }))
      .text;
    const shown = await info('B');
    expect(shown).toEqual({
      project: 'b',
      created_at: expect.stringMatching(/^2\d{3}-/),
      documents: 2,
      collections: 2,
      bytes: expect.any(Number),
      key: { version: 1, versions: [1], documents_to_reseal: 0 },
      cache: { open: true, key_cached: true },
    });
    // Sealing adds 28 bytes to each document, and the other text is one character longer.
    expect(Number(shown['bytes'])).toBe(2 * (text.length + 28));
  });

  it('reports whether the project was open, and opens it', async () => {
    await installation.stopBundoc();
    await installation.startBundoc();
    expect((await info('a'))['cache']).toEqual({ open: false, key_cached: false });
    expect((await info('a'))['cache']).toEqual({ open: true, key_cached: true });
  });

  it('answers 404 for a missing project and creates nothing, and 403 for a project that the token is not for', async () => {
    expect((await info('none'))['code']).toBe('project_not_found');
    expect((await list()).ids).not.toContain('none');
    const other = await installation.client(['b']);
    for (const project of ['a', 'none']) expect((await info(project, other))['code']).toBe('forbidden');
  });
});

describe('DELETE /v1/projects/{project}', () => {
  const PROJECT = 'to-delete';
  const NOTES = `/v1/projects/${PROJECT}/collections/notes/documents`;
  let admin: string;
  const remove = (query = `?confirm=${PROJECT}`, project = PROJECT, who = admin) =>
    call(installation.url, `/v1/projects/${project}${query}`, { method: 'DELETE', token: who });
  beforeAll(async () => {
    admin = await installation.client(['*'], ['docs:read', 'docs:write', 'docs:admin']);
    await call(installation.url, `${NOTES}/x`, { method: 'PUT', token, body: '{"v":1}' });
  });

  it('is refused without the scope, before any look-up, and without a correct confirmation', async () => {
    for (const project of [PROJECT, 'none']) {
      const refused = await remove(`?confirm=${project}`, project, token);
      expect([refused.status, refused.json()['code']]).toEqual([403, 'forbidden']);
    }
    for (const query of ['', '?confirm=a', '?confirm=', `?confirm=${PROJECT}&more=1`]) {
      const refused = await remove(query);
      expect([query, refused.status, refused.json()['code']]).toEqual([query, 400, 'invalid_request']);
    }
    expect((await remove('?confirm=none', 'none')).json()['code']).toBe('project_not_found');
    expect((await call(installation.url, `${NOTES}/x`, { token })).status).toBe(200);
  });

  it('is 503 without BunKMS, and changes nothing', async () => {
    await installation.stopKms();
    const refused = await remove();
    expect([refused.status, refused.json()['code']]).toEqual([503, 'kms_unavailable']);
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0);
    await installation.startKms();
    expect((await call(installation.url, `${NOTES}/x`, { token })).status).toBe(200);
  });

  it('destroys the key and the files and answers with the receipt, and every other route answers 410 permanently', async () => {
    const changes = `/v1/projects/${PROJECT}/changes?since=now`;
    using stream = await EventReader.open(`${installation.url}${changes}`, token);
    const poll = call(installation.url, `${changes}&wait=50`, { token });
    const followers = async () => /^bundoc_change_followers (\d+)$/m.exec(await installation.metrics())?.[1];
    await expect.poll(followers).toBe('2');
    const deleted = await remove();
    expect([deleted.status, deleted.json()]).toEqual([
      200,
      {
        project: PROJECT,
        deleted_at: expect.stringMatching(/^2/),
        key: expect.objectContaining({
          name: `${PROJECT}-dek`,
          state: 'destroyed',
          kek_ids: [expect.any(String)],
          audit: { seq: expect.any(Number), hash: expect.any(String) },
        }),
      },
    ]);
    await expect.poll(followers).toBe('0');
    // A browser's EventSource would reconnect once, and stop at 410.
    await expect.poll(() => stream.isEnded).toBe(true);
    const polled = await poll;
    expect([polled.status, polled.json()['code']]).toEqual([410, 'project_destroyed']);
    await expect(EventReader.open(`${installation.url}${changes}`, token)).rejects.toThrow(
      /project_destroyed/,
    );
    const expectGone = async () => {
      const project = `/v1/projects/${PROJECT}`;
      const answers = [
        await call(installation.url, project, { token }),
        await call(installation.url, `${NOTES}/x`, { token }),
        await call(installation.url, NOTES, { token }),
        await call(installation.url, `${project}/changes`, { token }),
        await call(installation.url, `${project}/collections`, { token }),
        await call(installation.url, `${NOTES}/x`, { method: 'PUT', token, body: '{}' }),
        await call(installation.url, `${NOTES}/x`, { method: 'DELETE', token }),
      ];
      for (const answer of answers)
        expect([answer.status, answer.json()['code']]).toEqual([410, 'project_destroyed']);
      expect((await list()).ids).not.toContain(PROJECT);
      expect((await remove()).json()).toEqual(deleted.json());
    };
    await expectGone();
    expect(await installation.stored.hasOnlyMark(PROJECT)).toBe(true);
    await installation.stopBundoc();
    await installation.startBundoc();
    await expectGone();
  });
});
