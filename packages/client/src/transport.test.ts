import { describe, expect, it } from 'vitest';
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

  it('asks for the token at each try', async () => {
    let asked = 0;
    const { transport, requests } = start([problem(503, 'overloaded'), ok()], {
      token: async () => `t${++asked}`,
    });
    await transport.send(get);
    expect(requests.map(({ init }) => new Headers(init.headers).get('authorization'))).toEqual([
      'Bearer t1',
      'Bearer t2',
    ]);
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
