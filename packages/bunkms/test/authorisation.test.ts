import { randomInt } from 'node:crypto';
import { isForServices } from '@bundoc/shared/contract/scopes';
import { LONG, runs } from '@bundoc/shared/testing/long';
import { sampleOf } from '@bundoc/shared/testing/sample';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Caller, makeCallers } from './support/callers.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { BOTH, type Need, ROUTES } from './support/routes.ts';

function expectedStatus(need: Need, ok: number, { token }: Caller): number {
  if (need === 'public') return 200;
  if (token === undefined) return 401;
  if (need === 'token') return token.typ === 'service' ? ok : 403;
  const mayAct =
    (token.scope.includes(need.scope) || (need.or !== undefined && token.scope.includes(need.or))) &&
    (token.typ === 'service' || (need.serviceOnly !== true && !isForServices(need.scope))) &&
    (need.issues !== true || token.may_issue !== undefined) &&
    (need.glob !== true || token.keys.includes('*') || token.keys.includes('*-dek'));
  return mayAct ? ok : 403;
}

/** `AUTHORISATION_SEED` repeats the sample that the title names. */
const SEED = Number(process.env['AUTHORISATION_SEED'] ?? randomInt(1, 2_147_483_646));
/** How many of the callers without a valid token each route is asked by; all in `npm run test:long`. */
const REFUSED = runs(8, Number.POSITIVE_INFINITY);

describe(`authorisation (${LONG ? 'all callers' : `AUTHORISATION_SEED=${SEED}`})`, () => {
  let kms: TestKms;
  const callers: Caller[] = [];
  /** Each caller with a valid token, and of the others a sample of its own. */
  const callersAt = (route: number): Caller[] => [
    ...sampleOf(
      callers.filter(({ token }) => token === undefined),
      REFUSED,
      SEED + route,
    ),
    ...callers.filter(({ token }) => token !== undefined),
  ];

  beforeAll(async () => {
    kms = await startKms();
    await kms.api('/v1/keys', { token: await kms.fullToken(), body: { name: 'known-dek', type: 'aes-256' } });
    callers.push(...(await makeCallers(kms)));
  });
  afterAll(() => kms[Symbol.asyncDispose]());

  it('covers every route of both listeners', async () => {
    const { createApiListener, createInternalListener } = await import('../src/http/listener.ts');
    const { createMetrics } = await import('../src/metrics.ts');
    const { createLogger } = await import('@bundoc/shared/logs/logger');
    const { Drain } = await import('@bundoc/shared/process/drain');
    const { FakeClock } = await import('@bundoc/shared/testing/fake-clock');
    const { publicKey } = await kms.secrets();
    const refuse = () => {
      throw new Error('not called');
    };
    const options = {
      logger: createLogger({ service: 'bunkms', level: 'silent' }),
      clock: new FakeClock(),
      drain: new Drain(0),
      metrics: createMetrics(),
      console: { version: '0.1.0', site: undefined },
      publicKey: () => publicKey,
      isSealed: () => false,
      services: refuse,
      readiness: refuse,
    };
    for (const [listener, app] of [
      ['api', await createApiListener(options, undefined, () => undefined)],
      ['internal', await createInternalListener(options, undefined, () => undefined)],
    ] as const) {
      await app.ready();
      const listed = ROUTES.filter(({ listeners }) => listeners.includes(listener));
      const urls = urlsOf(app.printRoutes({ commonPrefix: false }));
      const pages = urls.filter((url) => url.startsWith('/docs'));
      // The documentation page needs no token and exists only on the API listener.
      expect(pages.length > 0).toBe(listener === 'api');
      expect(new Set(urls.filter((url) => !pages.includes(url)))).toEqual(
        new Set(listed.map((route) => route.url)),
      );
      await app.close();
    }
  });

  it('covers every method of every route: all others are 405 and name the existing ones', async () => {
    for (const listener of BOTH)
      for (const url of new Set(ROUTES.map((route) => route.url))) {
        const routes = ROUTES.filter((route) => route.url === url && route.listeners.includes(listener));
        const [route] = routes;
        if (route === undefined) continue;
        const named = new Set(routes.map(({ method }) => method));
        // HEAD exists wherever GET does, except for export.
        if (named.has('GET') && !url.startsWith('/v1/export/')) named.add('HEAD');
        const methods = [...named].sort();
        for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE']) {
          if (methods.includes(method)) continue;
          const answer = await kms[listener](route.path, { method });
          expect([method, url, answer.status]).toEqual([method, url, 405]);
          expect(answer.headers['allow']).toBe(methods.join(', '));
        }
      }
  });

  const asked = ROUTES.flatMap((route) => route.listeners.map((listener) => ({ listener, ...route })));
  it.each(asked.map((route, at) => ({ at, ...route })))(
    '$listener $method $path answers each kind of caller as in the table',
    async (route) => {
      const need = route.listener === 'internal' ? (route.onInternal ?? route.need) : route.need;
      for (const caller of callersAt(route.at)) {
        const answer = await kms[route.listener](route.path, {
          method: route.method,
          statusOnly: route.streams,
          ...(route.body === undefined ? {} : { body: route.body }),
          headers: caller.authorization === undefined ? {} : { authorization: caller.authorization },
        });
        const what = `${caller.name} at ${route.method} ${route.path}`;
        expect([what, answer.status]).toEqual([what, expectedStatus(need, route.ok, caller)]);
        if (answer.status === 403)
          expect([what, answer.headers['www-authenticate']]).toEqual([
            what,
            'Bearer error="insufficient_scope"',
          ]);
      }
    },
  );

  it('gives all callers without a valid token the same refusal, with a hint where no token was sent', async () => {
    const bodies = new Map<boolean, Set<string>>();
    for (const caller of callers.filter(({ token }) => token === undefined)) {
      const headers: Record<string, string> =
        caller.authorization === undefined ? {} : { authorization: caller.authorization };
      const answer = await kms.internal('/v1/export/known-dek', { headers });
      const { request_id: _, ...problem } = answer.json();
      const { date: __, ...seen } = answer.headers;
      const isBearer = /^bearer\b/i.test(caller.authorization ?? '');
      const body = JSON.stringify([answer.status, problem, seen['content-type']]);
      bodies.set(isBearer, (bodies.get(isBearer) ?? new Set()).add(body));
      expect(seen['www-authenticate']).toBe(isBearer ? 'Bearer error="invalid_token"' : 'Bearer');
    }
    expect([bodies.get(true)?.size, bodies.get(false)?.size]).toEqual([1, 1]);
  });

  it('does not reveal whether a key exists to unauthorized callers', async () => {
    const { token } = await kms.issue({
      scope: [
        'kms:read_key',
        'kms:export_key',
        'kms:create_key',
        'kms:rotate_key',
        'kms:encrypt',
        'kms:decrypt',
      ],
      keys: ['mine-*'],
    });
    const refusals = [];
    for (const name of ['known-dek', 'unknown-dek', 'Not%20a%2Fname'])
      for (const [method, path] of [
        ['GET', `/v1/keys/${name}`],
        ['GET', `/v1/keys/${name}/leases`],
        ['GET', `/v1/export/${name}`],
        ['GET', `/v1/export/${name}?version=1`],
        ['GET', `/v1/export/${name}?version=x`],
        ['POST', `/v1/keys/${name}/rotate`],
        ['POST', `/v1/encrypt/${name}`],
        ['POST', `/v1/data-key/${name}`],
        ['POST', `/v1/decrypt/${name}`],
        ['POST', `/v1/rewrap/${name}`],
        ['POST', `/v1/keys/${name}/rotate?expected_version=1`],
      ] as const) {
        const answer = await kms.internal(path, { method, token });
        const { request_id: _, ...problem } = answer.json();
        refusals.push(JSON.stringify([answer.status, problem]));
      }
    expect(new Set(refusals).size).toBe(1);
    for (const name of ['known-dek', 'unknown-dek'])
      expect((await kms.api('/v1/keys', { token, body: { name, type: 'aes-256' } })).status).toBe(403);
  });

  it('lists only keys that the token is for', async () => {
    const full = await kms.fullToken();
    await kms.api('/v1/keys', { token: full, body: { name: 'other', type: 'aes-256' } });
    const { token } = await kms.issue({ scope: ['kms:read_key'], keys: ['*-dek'] });
    const { keys } = (await kms.api('/v1/keys', { token })).json();
    expect(keys.map((key: { name: string }) => key.name)).toEqual(['known-dek']);
  });

  it('has no export on the API listener, whatever the token', async () => {
    const token = await kms.fullToken();
    for (const path of ['/v1/export/known-dek', '/v1/%65xport/known-dek', '/v1/export', '/v1/export/'])
      expect((await kms.api(path, { token })).json()).toMatchObject({ status: 404, code: 'not_found' });
  });

  it('names the internal listener at each path that only this one has, the same for every caller', async () => {
    const pathsOf = async (ask: TestKms['api']) =>
      Object.keys((await ask('/openapi.json')).json()['paths'] as object);
    const ofApi = new Set(await pathsOf(kms.api));
    const only = (await pathsOf(kms.internal)).filter((path) => !ofApi.has(path));
    expect(only).toContain('/v1/export/{name}');
    const answers: string[] = [];
    for (const path of only)
      for (const name of ['known-dek', 'unknown-dek'])
        for (const token of [undefined, 'no token', await kms.fullToken()]) {
          const answer = await kms.api(path.replace('{name}', name), { token });
          const { request_id: _, ...problem } = answer.json();
          answers.push(JSON.stringify([answer.status, problem]));
        }
    expect([...new Set(answers)]).toEqual([
      expect.stringMatching(/^\[404,.*internal listener.*BUNKMS_INTERNAL_PORT/),
    ]);
    expect((await kms.api('/v1/exporters')).json()).not.toHaveProperty('detail');
  });
});

/** The URLs of Fastify's route tree. */
function urlsOf(printed: string): string[] {
  const urls: string[] = [];
  const path: string[] = [];
  for (const line of printed.split('\n')) {
    const [, indent = '', part = '', methods] = /^([│ ]*)[├└]── (\S*)(?: \((.*)\))?$/.exec(line) ?? [];
    if (part === '') continue;
    path.splice(indent.length / 4);
    path.push(part);
    if (methods !== undefined) urls.push(path.join(''));
  }
  return urls;
}
