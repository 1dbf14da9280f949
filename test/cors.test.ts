import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const ORIGIN = 'https://app.example';
const DOCUMENT = '/v1/projects/project-a/collections/notes/documents/first';

describe('BUNDOC_CORS_ORIGINS', () => {
  let installation: Installation;
  let token: string;
  beforeAll(async () => {
    installation = await Installation.start({
      environment: { BUNDOC_CORS_ORIGINS: `${ORIGIN}, http://localhost:5173` },
    });
    token = await installation.client();
  });
  afterAll(() => installation[Symbol.asyncDispose]());

  it('allows a page of a listed origin to write, read, and follow changes', async () => {
    const asked = await call(installation.url, DOCUMENT, {
      method: 'OPTIONS',
      headers: {
        origin: ORIGIN,
        'access-control-request-method': 'PUT',
        'access-control-request-headers': 'authorization,content-type',
      },
    });
    expect(asked.status).toBe(204);
    expect(asked.headers['access-control-allow-headers']).toContain('Authorization, Content-Type');
    const headers = { origin: ORIGIN };
    const answers = [
      await call(installation.url, DOCUMENT, { method: 'PUT', token, body: '{"v":1}', headers }),
      await call(installation.url, DOCUMENT, { token, headers }),
      await call(installation.url, '/v1/projects/project-a/changes', { token, headers }),
    ];
    expect(answers.map(({ status }) => status)).toEqual([201, 200, 200]);
    for (const answer of answers) {
      expect(answer.headers['access-control-allow-origin']).toBe(ORIGIN);
      expect(answer.headers['access-control-expose-headers']).toContain('ETag');
      expect(answer.headers['access-control-allow-credentials']).toBeUndefined();
    }
    expect(answers[2]?.headers['vary']).toBe('Origin, Accept');
  });

  it('allows a page of a listed origin to read a stream of changes', async () => {
    const stream = await fetch(`${installation.url}/v1/projects/project-a/changes`, {
      headers: { origin: ORIGIN, accept: 'text/event-stream', authorization: `Bearer ${token}` },
    });
    expect(stream.headers.get('access-control-allow-origin')).toBe(ORIGIN);
    expect(stream.headers.get('content-type')).toBe('text/event-stream');
    expect(stream.headers.get('vary')).toBe('Origin, Accept');
    await stream.body?.cancel();
  });

  it('allows a page of a listed origin to read refusals, and allows other origins nothing', async () => {
    for (const [origin, readable] of [
      [ORIGIN, ORIGIN],
      ['https://evil.example', undefined],
    ] as const) {
      const answers = [
        await call(installation.url, DOCUMENT, { headers: { origin } }),
        await call(installation.url, '/v1/none', { token, headers: { origin } }),
      ];
      expect(answers.map(({ status }) => status)).toEqual([401, 404]);
      for (const { headers } of answers) expect(headers['access-control-allow-origin']).toBe(readable);
    }
  });
});

it('adds no CORS header and refuses OPTIONS when no origin is listed', async () => {
  await using installation = await Installation.start();
  const headers = { origin: ORIGIN, 'access-control-request-method': 'PUT' };
  const answer = await call(installation.url, DOCUMENT, { method: 'OPTIONS', headers });
  expect(answer.status).toBe(405);
  expect(answer.headers['vary']).toBeUndefined();
  expect(Object.keys(answer.headers).filter((name) => name.startsWith('access-control-'))).toEqual([]);
});
