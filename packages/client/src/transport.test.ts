import { afterEach, describe, expect, it, vi } from 'vitest';
import { BundocError } from './error.ts';
import { type Request, Transport, type TransportOptions } from './transport.ts';

type Reply = Response | Error | (() => Promise<Response>);

/** A transport whose requests get these replies in turn, and whose pauses take no time. */
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

const ok = (text = '{}') => new Response(text);
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

  it('that is not answered says where it went, and one whose answer broke off says that', async () => {
    const { transport } = start([new Error('refused')], { triesMax: 1 });
    await expect(transport.send(get)).rejects.toThrow('there is no answer from https://docs.example.org');
    await expect(start([cutShort()], { triesMax: 1 }).transport.send(get)).rejects.toThrow('broke off');
  });

  it.each([429, 502, 503, 504])('is tried again after %i', async (status) => {
    const { transport, requests } = start([problem(status, 'rate_limited'), ok('"x"')]);
    expect((await transport.send(get)).text).toBe('"x"');
    expect(requests).toHaveLength(2);
  });

  it('is tried again when there was no answer, or half of one', async () => {
    const { transport } = start([new TypeError('fetch failed'), async () => cutShort(), ok('"x"')]);
    expect((await transport.send(get)).text).toBe('"x"');
  });

  it.each([
    ['is not idempotent', post, problem(503, 'overloaded'), 'overloaded'],
    ['was refused for good', get, problem(404, 'document_not_found'), 'document_not_found'],
    ['met an error of the server', get, problem(500, 'internal_error'), 'internal_error'],
    ['needs more than a pause', get, problem(503, 'key_missing'), 'key_missing'],
    ['needs a backup of BunKMS', get, problem(503, 'key_damaged'), 'key_damaged'],
  ])('is tried once when it %s', async (_why, request, reply, code) => {
    const { transport, requests } = start([reply]);
    await expect(transport.send(request)).rejects.toMatchObject({ code });
    expect(requests).toHaveLength(1);
  });

  it('waits longer and longer, and not less than the server wants', async () => {
    const { transport, pauses } = start([
      problem(503, 'overloaded'),
      problem(503, 'overloaded', { 'retry-after': '2' }),
      problem(503, 'overloaded'),
      ok(),
    ]);
    await transport.send(get);
    expect(pauses).toEqual([100, 2_200, 400]);
  });

  it('ends with the refusal when the pause would be beyond the deadline', async () => {
    const { transport, pauses } = start([problem(503, 'kms_unavailable', { 'retry-after': '60' })]);
    await expect(transport.send({ ...get, deadlineMs: 30_000 })).rejects.toMatchObject({
      code: 'kms_unavailable',
    });
    expect(pauses).toEqual([]);
  });

  it('ends at its deadline though nobody answers', async () => {
    const { transport } = start([], {
      fetch: (_url, init) =>
        new Promise((_resolve, reject) => {
          init?.signal?.addEventListener('abort', () => reject(init.signal?.reason as Error));
        }),
    });
    await expect(transport.send({ ...get, deadlineMs: 5 })).rejects.toMatchObject({
      code: 'deadline_exceeded',
    });
  });

  it('ends after so many tries', async () => {
    const { transport, requests } = start(
      Array.from({ length: 9 }, () => problem(503, 'overloaded')),
      { triesMax: 3 },
    );
    await expect(transport.send(get)).rejects.toBeInstanceOf(BundocError);
    expect(requests).toHaveLength(3);
  });

  it('is given up when its signal says so, also in a pause, with the reason of the signal', async () => {
    const stop = new AbortController();
    const reason = new Error('enough');
    const { transport, requests } = start([problem(503, 'overloaded'), ok()], {
      pause: async () => stop.abort(reason),
    });
    await expect(transport.send({ ...get, signal: stop.signal })).rejects.toBe(reason);
    await expect(transport.send({ ...get, signal: stop.signal })).rejects.toBe(reason);
    expect(requests).toHaveLength(1);
  });

  it('tells a refusal as an error with its code, status, faults and the id of the request', async () => {
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

  it('tells of an answer that is not Bundoc’s', async () => {
    const { transport } = start([new Response('<html>', { status: 403 })]);
    await expect(transport.send(get)).rejects.toMatchObject({ code: 'unexpected_answer', status: 403 });
  });

  it.each(['ftp://x', 'x', ''])('is not made to %j', (url) => {
    expect(() => start([], { url })).toThrow(TypeError);
  });
});

/** A token that says nothing but its times, seconds since 1970. */
const tokenOf = (name: string, iat: number, exp: number) =>
  `${name}.${btoa(JSON.stringify({ iat, exp }))}.signature`;
const refusal = () => problem(401, 'unauthenticated');
const bearers = (requests: readonly { init: RequestInit }[]) =>
  requests.map(({ init }) => new Headers(init.headers).get('authorization')?.slice('Bearer '.length));

describe('a token that a function gives', () => {
  it('is asked for once while it is good, and again before it ends', async () => {
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

  it('is asked for once by requests at the same time, and a request that is given up ends alone', async () => {
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

  it('is asked for again when it is refused, once for all requests that it was refused to', async () => {
    let asked = 0;
    const { transport, requests } = start([refusal(), refusal(), ok(), ok()], {
      token: async () => `t${++asked}`,
    });
    await Promise.all([transport.send(get), transport.send(post)]);
    expect(asked).toBe(2);
    expect(bearers(requests)).toEqual(['t1', 't1', 't2', 't2']);
  });

  it('ends the call when the new one is refused too, or is the same', async () => {
    let asked = 0;
    const fresh = start([refusal(), refusal()], { token: async () => `t${++asked}` });
    await expect(fresh.transport.send(get)).rejects.toMatchObject({ code: 'unauthenticated', status: 401 });
    expect(asked).toBe(2);
    const same = start([refusal()], { token: async () => 't' });
    await expect(same.transport.send(get)).rejects.toMatchObject({ code: 'unauthenticated' });
    expect(same.requests).toHaveLength(1);
  });

  it('is used to its end when no new one can be had, and then the call ends with why', async () => {
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

  it('is not asked for with each request by a clock that runs ahead', async () => {
    let asked = 0;
    const token = async () => tokenOf(`t${++asked}`, 1_000, 1_600);
    const { transport } = start([ok(), ok(), ok()], { token, now: () => 5_000_000 });
    for (let n = 0; n < 3; n++) await transport.send(get);
    expect(asked).toBe(1);
  });

  it('opens a stream again with a new one when the first is refused', async () => {
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

  it('a service without CORS for the page ends the call at once, and the error says what to set', async () => {
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

  it('a service that does not answer is a failure of the network, which is tried again', async () => {
    vi.stubGlobal('location', { origin: 'https://app.example.org' });
    const { transport } = start([blocked(), blocked(), ok('"x"')]);
    expect((await transport.send(get)).text).toBe('"x"');
  });

  it('a service whose answers a page has read, or of the same origin, is not suspected', async () => {
    vi.stubGlobal('location', { origin: 'https://app.example.org' });
    const { transport } = start([ok(), blocked(), ok('"x"')]);
    await transport.send(get);
    expect((await transport.send(get)).text).toBe('"x"');
    vi.stubGlobal('location', { origin: 'https://docs.example.org' });
    const own = start([blocked(), ok('"x"')]);
    expect((await own.transport.send(get)).text).toBe('"x"');
  });
});
