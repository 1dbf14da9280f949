import { afterEach, describe, expect, it, vi } from 'vitest';
import { BundocError } from './error.ts';
import { type Request, Transport, type TransportOptions } from './transport.ts';

type Reply = Response | Error | (() => Promise<Response>);

/** A transport that answers requests with these replies in turn, and whose pauses take no time. */
function start(replies: Reply[], options: Partial<TransportOptions> = {}) {
  const requests: { url: string; init: RequestInit }[] = [];
  const pauses: number[] = [];
  const transport = new Transport({
    url: 'https://docs.example.org/base/',
    token: 'secret',
    random: () => 1,
    pause: async (ms) => {
      pauses.push(ms);
    },
    fetch: async (url, init = {}) => {
      requests.push({ url: String(url), init });
      const reply = replies.shift();
      if (reply === undefined) throw new Error('there is no reply');
      if (reply instanceof Error) throw reply;
      return typeof reply === 'function' ? reply() : reply;
    },
    ...options,
  });
  return { transport, requests, pauses };
}

const ok = (text = '{}') =>
  new Response(text, { headers: { 'content-type': 'application/json; charset=utf-8' } });
const problem = (status: number, code: string, headers: Record<string, string> = {}) =>
  new Response(JSON.stringify({ code, title: 'A title', status, detail: 'a detail', request_id: 'r-1' }), {
    status,
    headers,
  });
const get: Request = { method: 'GET', path: '/x', isIdempotent: true };
const post: Request = { method: 'POST', path: '/x', body: '{}', isIdempotent: false };
const cutShort = () =>
  new Response(
    new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode('{"a'));
        controller.error(new Error('cut'));
      },
    }),
  );

describe('a request', () => {
  it('goes below the URL, with the token and the query', async () => {
    const { transport, requests } = start([ok()]);
    await transport.send({ ...get, query: { a: 'ä&', b: undefined, c: 1 } });
    expect(requests[0]?.url).toBe('https://docs.example.org/base/v1/x?a=%C3%A4%26&c=1');
    expect(new Headers(requests[0]?.init.headers).get('authorization')).toBe('Bearer secret');
  });

  it('a request that fails names the service when there was no answer, and says when the answer was cut short', async () => {
    const { transport } = start([new Error('refused')], { triesMax: 1 });
    await expect(transport.send(get)).rejects.toThrow('there is no answer from https://docs.example.org');
    const cause = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' });
    const down = start([new TypeError('fetch failed', { cause })], { triesMax: 1 }).transport;
    await expect(down.send(get)).rejects.toThrow(
      'there is no answer from https://docs.example.org (ECONNREFUSED)',
    );
    await expect(start([cutShort()], { triesMax: 1 }).transport.send(get)).rejects.toThrow('was cut short');
  });

  it('a request below a wrong URL is refused with that URL, as there is nothing at its path', async () => {
    const nothing = () => Response.json({ code: 'not_found', title: 'Nothing' }, { status: 404 });
    const { transport } = start([nothing(), nothing()], { url: 'https://kms.example.org/v1/' });
    const told = 'not_found: Nothing: is https://kms.example.org/v1 the URL of Bundoc, without a path?';
    await expect(transport.send(get)).rejects.toThrow(told);
    await expect(transport.open(get, new AbortController().signal)).rejects.toThrow(told);
  });

  it('a request that a proxy answers with a page is refused as such, and is not retried', async () => {
    const page = new Response('<html>Sign in</html>', { headers: { 'content-type': 'text/html' } });
    const { transport, requests } = start([page]);
    await expect(transport.send(get)).rejects.toMatchObject({ code: 'unexpected_answer', status: 200 });
    expect(requests).toHaveLength(1);
  });

  it('a request without content is answered without a content type', async () => {
    const { transport } = start([new Response(null, { status: 204 })]);
    expect(await transport.send(get)).toMatchObject({ status: 204, text: '' });
  });

  it.each([Number.POSITIVE_INFINITY, 1e12])('may have a deadline of %d ms', async (deadlineMs) => {
    const warned = vi.spyOn(process, 'emitWarning').mockReturnValue();
    const late = () => new Promise<Response>((resolve) => setTimeout(() => resolve(ok('"x"')), 20));
    const { transport } = start([problem(503, 'overloaded'), late]);
    expect((await transport.send({ ...get, deadlineMs })).text).toBe('"x"');
    expect(warned).not.toHaveBeenCalled();
    warned.mockRestore();
  });

  it.each([429, 502, 503, 504])('is retried after status %i', async (status) => {
    const { transport, requests } = start([problem(status, 'rate_limited'), ok('"x"')]);
    expect((await transport.send(get)).text).toBe('"x"');
    expect(requests).toHaveLength(2);
  });

  it('is retried when there was no answer, or half of one', async () => {
    const { transport } = start([new TypeError('fetch failed'), async () => cutShort(), ok('"x"')]);
    expect((await transport.send(get)).text).toBe('"x"');
  });

  it.each([
    ['is not idempotent', post, problem(503, 'overloaded'), 'overloaded'],
    ['was refused for good', get, problem(404, 'document_not_found'), 'document_not_found'],
    ['met an error of the server', get, problem(500, 'internal_error'), 'internal_error'],
    ['needs more than a pause', get, problem(503, 'key_missing'), 'key_missing'],
    ['needs a backup of BunKMS', get, problem(503, 'key_damaged'), 'key_damaged'],
  ])('is not retried when it %s', async (_why, request, reply, code) => {
    const { transport, requests } = start([reply]);
    await expect(transport.send(request)).rejects.toMatchObject({ code });
    expect(requests).toHaveLength(1);
  });

  it('waits longer after each failure, and at least for the `Retry-After` of the server', async () => {
    const { transport, pauses } = start([
      problem(503, 'overloaded'),
      problem(503, 'overloaded', { 'retry-after': '2' }),
      problem(503, 'overloaded'),
      ok(),
    ]);
    await transport.send(get);
    expect(pauses).toEqual([100, 2_200, 400]);
  });

  it('fails with the refusal when the next pause would pass the deadline', async () => {
    const { transport, pauses } = start([problem(503, 'kms_unavailable', { 'retry-after': '60' })]);
    await expect(transport.send({ ...get, deadlineMs: 30_000 })).rejects.toMatchObject({
      code: 'kms_unavailable',
    });
    expect(pauses).toEqual([]);
  });

  it('fails at its deadline when there is no answer', async () => {
    const { transport } = start([], {
      fetch: (_url, init) =>
        new Promise((_resolve, reject) => {
          init?.signal?.addEventListener('abort', () => reject(init.signal?.reason as Error));
        }),
    });
    await expect(transport.send({ ...get, deadlineMs: 5 })).rejects.toMatchObject({
      code: 'deadline_exceeded',
      detail: 'not done within 5 ms',
    });
  });

  it('fails after the maximum number of tries', async () => {
    const { transport, requests } = start(
      Array.from({ length: 9 }, () => problem(503, 'overloaded')),
      { triesMax: 3 },
    );
    await expect(transport.send(get)).rejects.toBeInstanceOf(BundocError);
    expect(requests).toHaveLength(3);
  });

  it('is abandoned when its signal is aborted, even in a pause, with the reason of the signal', async () => {
    const stop = new AbortController();
    const reason = new Error('enough');
    const { transport, requests } = start([problem(503, 'overloaded'), ok()], {
      pause: async () => stop.abort(reason),
    });
    await expect(transport.send({ ...get, signal: stop.signal })).rejects.toBe(reason);
    await expect(transport.send({ ...get, signal: stop.signal })).rejects.toBe(reason);
    expect(requests).toHaveLength(1);
  });

  it('reports a refusal as an error with its code, status, faults and the id of the request', async () => {
    const body = {
      code: 'invalid_request',
      title: 'The request is not valid',
      status: 400,
      request_id: 'r-2',
      errors: [{ path: 'query.limit', message: 'is wrong' }],
    };
    const { transport } = start([new Response(JSON.stringify(body), { status: 400 })]);
    await expect(transport.send(get)).rejects.toMatchObject({
      name: 'BundocError',
      message: 'invalid_request: The request is not valid: query.limit is wrong',
      status: 400,
      requestId: 'r-2',
      errors: body.errors,
      problem: body,
    });
  });

  it('reports an answer that is not Bundoc’s', async () => {
    const { transport } = start([new Response('<html>', { status: 403 })]);
    await expect(transport.send(get)).rejects.toMatchObject({ code: 'unexpected_answer', status: 403 });
  });

  it.each(['ftp://x', 'x', ''])('is not made to %j, and names the option', (url) => {
    expect(() => start([], { url })).toThrow(
      new TypeError(`url: "${url}" is no http or https URL, such as https://docs.example.org`),
    );
  });
});

/** A token with nothing but its times, seconds since 1970. */
const tokenOf = (name: string, iat: number, exp: number) =>
  `${name}.${btoa(JSON.stringify({ iat, exp }))}.signature`;
const refusal = () => problem(401, 'unauthenticated');
const bearers = (requests: readonly { init: RequestInit }[]) =>
  requests.map(({ init }) => new Headers(init.headers).get('authorization')?.slice('Bearer '.length));

describe('a token from a function', () => {
  it('is requested once while it is valid, and again before it expires', async () => {
    let nowS = 1_000;
    const given: string[] = [];
    const token = async () => {
      given.push(tokenOf(`t${given.length + 1}`, nowS, nowS + 900));
      return String(given.at(-1));
    };
    const { transport, requests } = start([ok(), ok(), ok()], { token, now: () => nowS * 1_000 });
    await transport.send(get);
    nowS += 900 - 61;
    await transport.send(get);
    nowS += 2;
    await transport.send(get);
    expect(given).toHaveLength(2);
    expect(bearers(requests)).toEqual([given[0], given[0], given[1]]);
  });

  it('is requested once for concurrent requests, and aborting one of them does not end the others', async () => {
    const { promise, resolve } = Promise.withResolvers<string>();
    let asked = 0;
    const token = () => {
      asked++;
      return promise;
    };
    const { transport, requests } = start([ok('1'), ok('2')], { token });
    const stop = new AbortController();
    const sent = [transport.send(get), transport.send(get), transport.send({ ...get, signal: stop.signal })];
    stop.abort(new Error('enough'));
    await expect(sent[2]).rejects.toThrow('enough');
    resolve('t');
    await Promise.all(sent.slice(0, 2));
    expect([asked, ...bearers(requests)]).toEqual([1, 't', 't']);
  });

  it('is requested again when the service refuses it, once for all the refused requests', async () => {
    let asked = 0;
    const { transport, requests } = start([refusal(), refusal(), ok(), ok()], {
      token: async () => `t${++asked}`,
    });
    await Promise.all([transport.send(get), transport.send(post)]);
    expect(asked).toBe(2);
    expect(bearers(requests)).toEqual(['t1', 't1', 't2', 't2']);
  });

  it('fails the call when the new one is refused too, or is the same', async () => {
    let asked = 0;
    const fresh = start([refusal(), refusal()], { token: async () => `t${++asked}` });
    await expect(fresh.transport.send(get)).rejects.toMatchObject({ code: 'unauthenticated', status: 401 });
    expect(asked).toBe(2);
    const same = start([refusal()], { token: async () => 't' });
    await expect(same.transport.send(get)).rejects.toMatchObject({ code: 'unauthenticated' });
    expect(same.requests).toHaveLength(1);
  });

  it('is named as expired when the service refuses it then, in a call and in a stream', async () => {
    const token = tokenOf('t', 1_000, 1_900);
    const refusedAt = async (nowS: number) => {
      const body = JSON.stringify({ code: 'unauthenticated', title: 'a title' });
      const silent = () => new Response(body, { status: 401 });
      const { transport } = start([silent(), silent()], { token, now: () => nowS * 1_000 });
      const { signal } = new AbortController();
      const details: unknown[] = [];
      for (const call of [transport.send(get), transport.open(get, signal)])
        await call.catch(({ code, detail }: BundocError) => details.push([code, detail]));
      return details;
    };
    const expired = 'the token expired at 1970-01-01T00:31:40.000Z: give a new one';
    expect(await refusedAt(1_900)).toEqual(Array(2).fill(['unauthenticated', expired]));
    expect(await refusedAt(1_899)).toEqual(Array(2).fill(['unauthenticated', undefined]));
  });

  it('is used until it expires when the function fails, and then the call fails with that error', async () => {
    let nowS = 1_000;
    let isDown = false;
    const token = async () => {
      if (isDown) throw new Error('the backend is down');
      return tokenOf('t', nowS, nowS + 600);
    };
    const { transport } = start([ok(), ok()], { token, now: () => nowS * 1_000 });
    await transport.send(get);
    isDown = true;
    nowS += 599;
    await transport.send(get);
    nowS += 1;
    await expect(transport.send(get)).rejects.toThrow('the backend is down');
  });

  it('is not renewed for each request when the clock runs ahead', async () => {
    let asked = 0;
    const token = async () => tokenOf(`t${++asked}`, 1_000, 1_600);
    const { transport } = start([ok(), ok(), ok()], { token, now: () => 5_000_000 });
    for (let n = 0; n < 3; n++) await transport.send(get);
    expect(asked).toBe(1);
  });

  it('is replaced when a stream is refused, and the stream opens with the new one', async () => {
    let asked = 0;
    const { transport, requests } = start([refusal(), ok('x')], { token: async () => `t${++asked}` });
    await transport.open(get, new AbortController().signal);
    expect(bearers(requests)).toEqual(['t1', 't2']);
  });
});

describe('in a browser', () => {
  afterEach(() => {
    vi.unstubAllGlobals();
  });
  const blocked = () => new TypeError('Failed to fetch');

  it('a service without CORS for the page fails the call at once, and the error says what to set', async () => {
    vi.stubGlobal('location', { origin: 'https://app.example.org' });
    const { transport, requests } = start([blocked(), ok()]);
    const error = await transport.send(get).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: 'cors_refused', status: 0 });
    expect(String(error)).toContain('add https://app.example.org to its BUNDOC_CORS_ORIGINS');
    expect(requests.map(({ url, init }) => [url, init.mode])).toEqual([
      ['https://docs.example.org/base/v1/x', undefined],
      ['https://docs.example.org/health', 'no-cors'],
    ]);
    expect(new Headers(requests[1]?.init.headers).has('authorization')).toBe(false);
  });

  it('a service that does not answer is a network failure, which is retried', async () => {
    vi.stubGlobal('location', { origin: 'https://app.example.org' });
    const { transport } = start([blocked(), blocked(), ok('"x"')]);
    expect((await transport.send(get)).text).toBe('"x"');
  });

  it('a service whose answers the page has read, or of the same origin, never counts as one without CORS', async () => {
    vi.stubGlobal('location', { origin: 'https://app.example.org' });
    const { transport } = start([ok(), blocked(), ok('"x"')]);
    await transport.send(get);
    expect((await transport.send(get)).text).toBe('"x"');
    vi.stubGlobal('location', { origin: 'https://docs.example.org' });
    const own = start([blocked(), ok('"x"')]);
    expect((await own.transport.send(get)).text).toBe('"x"');
  });
});
