import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Writable } from 'node:stream';
import { keyCheckValue } from '@bundoc/shared/crypto/aead';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { createLogger } from '@bundoc/shared/runtime/logger';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { afterEach, describe, expect, it } from 'vitest';
import { KmsClient } from '../src/kms/client.ts';
import { KeyRefused } from '../src/kms/port.ts';
import { CALL_DEADLINE_MS, type KmsTransportOptions } from '../src/kms/transport.ts';

type Script = (request: IncomingMessage, response: ServerResponse, call: number) => void;

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

/** A server with scripted answers, and a client of it. */
async function start(script: Script, options: Pick<KmsTransportOptions, 'streamSilentMs'> = {}) {
  let calls = 0;
  const seen: { method: string; url: string; authorization: string | undefined; body: string }[] = [];
  const server = createServer((request, response) => {
    const call = ++calls;
    let body = '';
    request.on('data', (chunk: Buffer) => {
      body += chunk.toString();
    });
    request.on('end', () => {
      seen.push({
        method: String(request.method),
        url: String(request.url),
        authorization: request.headers.authorization,
        body,
      });
      script(request, response, call);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const lines: string[] = [];
  const destination = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(chunk.toString());
      done();
    },
  });
  const client = new KmsClient({
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    token: () => 'the-service-token',
    clock: systemClock,
    logger: createLogger({ service: 'bundoc', level: 'debug', destination }),
    random: () => 0.1,
    ...options,
  });
  cleanups.push(async () => {
    await client.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return { client, seen, lines, calls: () => calls };
}

const dek = createSecretKey(randomBytes(32));
const exported = (overrides: Record<string, unknown> = {}) => ({
  key_material_b64: dek.export().toString('base64'),
  algorithm: 'AES-256-GCM',
  name: 'p-dek',
  key_id: randomUUID(),
  version: 1,
  kcv: keyCheckValue(dek),
  wrapped_b64: randomBytes(69).toString('base64'),
  lease: { id: randomUUID(), ttl_ms: 900_000 },
  audit: { seq: 1, hash: 'ab' },
  ...overrides,
});

const ACTING = { storage: randomUUID(), generation: randomUUID() };
const OTHER = randomUUID();
const MOVE = randomUUID();

function answer(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
) {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
}

const problem = (response: ServerResponse, status: number, code: string, headers?: Record<string, string>) =>
  answer(response, status, { code }, headers);

describe('KmsClient', () => {
  it('exports a key with its service token, and returns only a KeyObject of it', async () => {
    const { client, seen } = await start((_request, response) => answer(response, 200, exported()));
    const key = await client.exportKey('p-dek');
    expect(key.dek.equals(dek)).toBe(true);
    expect(JSON.stringify(key)).not.toContain(dek.export().toString('base64'));
    expect(seen[0]).toMatchObject({
      method: 'GET',
      url: '/v1/export/p-dek',
      authorization: 'Bearer the-service-token',
    });
  });

  it('creates a key of type aes-256, and accepts that another node was first', async () => {
    const { client, seen } = await start((_request, response, call) =>
      call === 1 ? answer(response, 201, {}) : problem(response, 409, 'key_exists'),
    );
    expect(await client.createKey('p-dek')).toBe(true);
    expect(await client.createKey('p-dek')).toBe(false);
    expect(JSON.parse(String(seen[0]?.body))).toEqual({ name: 'p-dek', type: 'aes-256' });
  });

  it.each([
    ['key_held_elsewhere', 'project_elsewhere'],
    ['key_disabled', 'project_disabled'],
  ])('does not mistake another conflict for an existing key: %s', async (code, said) => {
    const { client, calls } = await start((_request, response) => problem(response, 409, code));
    await expect(client.createKey('p-dek', ACTING)).rejects.toMatchObject({ code: said });
    expect(calls()).toBe(1);
  });

  it('immediately reports which storage holds a key', async () => {
    const { client, calls } = await start((_request, response) =>
      answer(response, 409, { code: 'key_held_elsewhere', storage: OTHER }),
    );
    await expect(client.exportKey('p-dek', undefined, ACTING)).rejects.toMatchObject({
      code: 'project_elsewhere',
      storage: OTHER,
    });
    expect(calls()).toBe(1);
  });

  it('names its storage and generation in every call that only the holder of a key may make', async () => {
    const receipt = { seq: 7, hash: 'ab' };
    const intent = { name: 'p-dek', receipt, intended_at: '2026-01-01T00:00:00.000Z' };
    const destroyed = {
      ...{ id: randomUUID(), name: 'p-dek', state: 'destroyed', revision: 3 },
      ...{ destroyed_at: '2026-01-01T00:00:00.000Z', kek_ids: ['ab'], audit: receipt },
    };
    const { client, seen } = await start((request, response) => {
      if (request.url?.startsWith('/v1/export')) answer(response, 200, exported());
      else if (request.url?.endsWith('/deletion-intent')) answer(response, 200, intent);
      else if (request.url?.endsWith('/shred')) answer(response, 200, destroyed);
      else answer(response, request.url === '/v1/keys' ? 201 : 200, {});
    });
    await client.createKey('p-dek', ACTING);
    await client.exportKey('p-dek', 1, ACTING);
    await client.claimKey('p-dek', ACTING);
    expect(await client.intendDeletion('p-dek', ACTING)).toEqual(intent);
    expect(await client.shredKey('p-dek', receipt, ACTING)).toEqual(destroyed);
    await client.contentRemoved('p-dek', ACTING);
    await client.offerKey('p-dek', OTHER, MOVE, ACTING);
    await client.withdrawOffer('p-dek', MOVE, ACTING);
    await client.acceptKey('p-dek', MOVE, ACTING);
    const { storage, generation } = ACTING;
    const key = (change: string) => `POST /v1/keys/p-dek/${change}`;
    expect(
      seen.map(({ method, url, body }) => [`${method} ${url}`, body === '' ? undefined : JSON.parse(body)]),
    ).toEqual([
      ['POST /v1/keys', { name: 'p-dek', type: 'aes-256', storage }],
      [`GET /v1/export/p-dek?storage=${storage}&generation=${generation}&version=1`, undefined],
      [key('claim'), { storage, generation }],
      [key('deletion-intent'), { storage, generation }],
      [key('shred'), { storage, generation, receipt }],
      [key('content-removed'), { storage, generation }],
      [key('offer'), { storage, generation, to: OTHER, move: MOVE }],
      [key('withdraw'), { storage, generation, move: MOVE }],
      [key('accept'), { storage, generation, move: MOVE }],
    ]);
  });

  it('reads the unfinished deletions of its storage page by page', async () => {
    const entry = (name: string) => ({
      ...{ name, state: 'destroyed', receipt: { seq: 7, hash: 'ab' } },
      intended_at: '2026-01-01T00:00:00.000Z',
    });
    const { client, seen } = await start((_request, response, call) =>
      answer(response, 200, {
        deletions: [entry(`p${call}-dek`)],
        ...(call === 1 ? { next_cursor: 'a b' } : {}),
      }),
    );
    const found = await client.unfinishedDeletions(ACTING);
    expect(found.map(({ name }) => name)).toEqual(['p1-dek', 'p2-dek']);
    const path = `/v1/storages/${ACTING.storage}/deletions?generation=${ACTING.generation}&limit=100`;
    expect(seen.map(({ url }) => url)).toEqual([path, `${path}&cursor=a+b`]);
  });

  it('advances a storage from the generations that it may have', async () => {
    const info = {
      id: ACTING.storage,
      generation: OTHER,
      take_overs: 2,
      advanced_at: '2026-01-01T00:00:00.000Z',
    };
    const { client, seen } = await start((_request, response, call) =>
      call === 1 ? answer(response, 200, info) : problem(response, 409, 'storage_superseded'),
    );
    const advance = () => client.advanceStorage(ACTING.storage, [ACTING.generation], OTHER);
    expect(await advance()).toEqual(info);
    await expect(advance()).rejects.toMatchObject({ code: 'storage_superseded' });
    expect([seen[0]?.url, JSON.parse(seen[0]?.body ?? '')]).toEqual([
      `/v1/storages/${ACTING.storage}/advance`,
      { from: [ACTING.generation], to: OTHER },
    ]);
  });

  it('sends an intent once, because an abandoned attempt could arrive after it was taken back', async () => {
    const { client, calls } = await start((_request, response) => problem(response, 503, 'overloaded'));
    await expect(client.intendDeletion('p-dek', ACTING)).rejects.toMatchObject({ code: 'kms_unavailable' });
    expect(calls()).toBe(1);
  });

  it('reports the missing scope of its token for destroying keys', async () => {
    const { client } = await start((_request, response) => problem(response, 403, 'forbidden'));
    for (const refused of [
      client.intendDeletion('p-dek', ACTING),
      client.shredKey('p-dek', { seq: 1, hash: 'ab' }, ACTING),
      client.unfinishedDeletions(ACTING),
    ])
      await expect(refused).rejects.toMatchObject({
        code: 'kms_unavailable',
        detail: expect.stringContaining('kms:shred_key'),
        retryAfterS: 60,
      });
  });

  it('never reports a destroyed key as existing', async () => {
    const { client } = await start((_request, response) => problem(response, 410, 'key_destroyed'));
    await expect(client.createKey('p-dek')).rejects.toMatchObject({ code: 'project_destroyed' });
  });

  it.each([429, 502, 503, 504])('retries after %d', async (status) => {
    const { client, calls } = await start((_request, response, call) =>
      call < 3 ? problem(response, status, 'overloaded') : answer(response, 200, exported()),
    );
    await client.exportKey('p-dek');
    expect(calls()).toBe(3);
  });

  it('retries after a connection that broke before or during an answer', async () => {
    const { client, calls } = await start((_request, response, call) => {
      if (call === 1) response.destroy();
      else if (call === 2) {
        response.writeHead(200, { 'content-length': '5000' });
        response.write('{"key_material', () => response.destroy());
      } else answer(response, 200, exported());
    });
    await client.exportKey('p-dek');
    expect(calls()).toBe(3);
  });

  it.each([
    [404, 'key_not_found', 'key_not_found'],
    [503, 'key_damaged', 'key_damaged'],
    [410, 'key_destroyed', 'project_destroyed'],
    [410, 'key_version_destroyed', 'key_version_destroyed'],
    [409, 'key_held_elsewhere', 'project_elsewhere'],
    [409, 'key_unheld', 'key_unheld'],
    [409, 'key_deletion_intended', 'project_deleting'],
    [409, 'storage_superseded', 'storage_superseded'],
    [409, 'key_disabled', 'project_disabled'],
    [409, 'key_pending_deletion', 'project_disabled'],
    [403, 'key_not_exportable', 'project_disabled'],
    [503, 'sealed', 'kms_unavailable'],
    [401, 'unauthenticated', 'kms_unavailable'],
    [403, 'forbidden', 'kms_unavailable'],
    [500, 'internal_error', 'kms_unavailable'],
    [404, 'not_found', 'kms_unavailable'],
  ])('does not retry after %d %s, and reports %s', async (status, code, said) => {
    const { client, calls } = await start((_request, response) => problem(response, status, code));
    await expect(client.exportKey('p-dek')).rejects.toMatchObject({ code: said });
    expect(calls()).toBe(1);
  });

  it.each([
    [401, 'unauthenticated', 'BUNDOC_KMS_TOKEN_FILE'],
    [403, 'forbidden', 'BUNDOC_KMS_TOKEN_FILE'],
    [404, 'not_found', 'BUNDOC_KMS_URL'],
    [503, 'sealed', 'another KEK'],
  ])('tells the operator what to do about %d %s', async (status, code, remedy) => {
    const { client, lines } = await start((_request, response) => problem(response, status, code));
    await client.exportKey('p-dek').catch(() => undefined);
    expect(lines.join('')).toContain(remedy);
    const signal = AbortSignal.timeout(5_000);
    await expect(client.openEvents(undefined, signal)).rejects.toThrow(remedy);
  });

  it('waits as long as Retry-After says', async () => {
    const times: number[] = [];
    const { client } = await start((_request, response, call) => {
      times.push(performance.now());
      if (call === 1) problem(response, 503, 'overloaded', { 'retry-after': '1' });
      else answer(response, 200, exported());
    });
    await client.exportKey('p-dek');
    expect(times[1]! - times[0]!).toBeGreaterThanOrEqual(995);
  });

  it('gives up at once when Retry-After exceeds its deadline, and passes the time on', async () => {
    const { client, calls } = await start((_request, response) =>
      problem(response, 503, 'overloaded', { 'retry-after': '60' }),
    );
    await expect(client.exportKey('p-dek')).rejects.toMatchObject({
      code: 'kms_unavailable',
      retryAfterS: 60,
    });
    expect(calls()).toBe(1);
  });

  it('gives up on a frozen server within its deadline, for many callers at once', async () => {
    const { client } = await start(() => undefined);
    const started = performance.now();
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => client.exportKey('p-dek')));
    expect(outcomes.every(({ status }) => status === 'rejected')).toBe(true);
    // Concurrently: one after the other they would take twenty times as long.
    expect(performance.now() - started).toBeLessThan(10 * CALL_DEADLINE_MS);
    expect(CALL_DEADLINE_MS).toBeLessThan(5_000);
  });

  it('ends running calls silently when it is closed', async () => {
    const { client, calls, lines } = await start((_, response, call) => {
      // The first one waits for an answer, the second one for its next attempt.
      if (call > 1) response.writeHead(503, { 'retry-after': '2' }).end();
    });
    const outcomes = [client.exportKey('p-dek'), client.exportKey('q-dek')].map((call) =>
      call.catch((error: unknown) => error),
    );
    await expect.poll(calls).toBe(2);
    await client.close();
    // Both have already ended: each settles before a timer could.
    const late = new Promise((resolve) => setImmediate(resolve, 'late'));
    for (const outcome of outcomes)
      expect(await Promise.race([outcome, late])).toMatchObject({ code: 'kms_unavailable' });
    expect(lines).toEqual([]);
  });

  it('reports kms_unavailable, with a time to wait, when nothing listens', async () => {
    const { client } = await start(() => undefined);
    const elsewhere = new KmsClient({
      url: 'http://127.0.0.1:1',
      token: () => 'x',
      clock: systemClock,
      logger: createLogger({ service: 'bundoc', level: 'silent' }),
      random: () => 1,
    });
    cleanups.push(() => elsewhere.close());
    await expect(elsewhere.exportKey('p-dek')).rejects.toMatchObject({
      code: 'kms_unavailable',
      retryAfterS: 2,
    });
    expect(await elsewhere.isUp()).toBe(false);
    expect(await client.isUp()).toBe(false);
  });

  it.each([
    ['another name', { name: 'q-dek' }, 'key_mismatch'],
    ['a wrong check value', { kcv: '0'.repeat(32) }, 'key_mismatch'],
    ['a short key', { key_material_b64: 'AAAA' }, 'kms_unavailable'],
    ['another algorithm', { algorithm: 'AES-128-GCM' }, 'kms_unavailable'],
  ])('refuses an answer with %s', async (_name, overrides, code) => {
    const { client } = await start((_request, response) => answer(response, 200, exported(overrides)));
    await expect(client.exportKey('p-dek')).rejects.toMatchObject({ code });
  });

  it('refuses an answer that is not JSON or too large, without repeating it', async () => {
    const { client, lines } = await start((_request, response, call) => {
      if (call === 1) response.end('planted-secret {');
      else response.end('planted-secret '.repeat(10_000));
    });
    for (let n = 0; n < 2; n++) {
      const error: unknown = await client.exportKey('p-dek').catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'kms_unavailable' });
    }
    expect(lines.join('')).not.toContain('planted-secret');
  });

  it('logs neither its token nor a key', async () => {
    const { client, lines } = await start((_request, response, call) =>
      call === 1 ? answer(response, 200, exported()) : problem(response, 401, 'unauthenticated'),
    );
    await client.exportKey('p-dek');
    await client.exportKey('p-dek').catch(() => undefined);
    expect(lines.length).toBeGreaterThan(0);
    expect(lines.join('')).not.toContain('the-service-token');
    expect(lines.join('')).not.toContain(dek.export().toString('base64'));
  });

  it.each([
    [403, 'forbidden', true],
    [409, 'key_exists', true],
    [410, 'position_gone', true],
    [401, 'unauthenticated', false],
    [403, undefined, false],
    [404, 'not_found', false],
    [500, 'internal_error', false],
  ])(
    'distinguishes a refused key from a service without an answer: %i %s',
    async (status, code, isRefused) => {
      const { client } = await start((_request, response) => {
        response.writeHead(status, { 'content-type': 'application/json' });
        response.end(JSON.stringify(code === undefined ? {} : { code }));
      });
      const error: unknown = await client.exportKey('p-dek').catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'kms_unavailable' });
      expect((error as Error).cause instanceof KeyRefused).toBe(isRefused);
    },
  );

  it('opens the stream of events with its token and its position, and ends it on request', async () => {
    const lastEventIds: unknown[] = [];
    const { client, seen } = await start((request, response) => {
      lastEventIds.push(request.headers['last-event-id']);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('event: reset\n');
    });
    for (const id of [undefined, '7:ab']) {
      const stop = new AbortController();
      const chunks: string[] = [];
      await expect(
        (async () => {
          for await (const chunk of await client.openEvents(id, stop.signal)) {
            chunks.push(Buffer.from(chunk).toString());
            stop.abort();
          }
        })(),
      ).rejects.toThrow();
      expect(chunks).toEqual(['event: reset\n']);
    }
    expect(lastEventIds).toEqual([undefined, '7:ab']);
    expect(seen[0]).toMatchObject({ url: '/v1/events', authorization: 'Bearer the-service-token' });
  });

  it('treats a silent stream of events as dead', async () => {
    const { client } = await start(
      (_request, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.write('event: heartbeat\n');
      },
      { streamSilentMs: 200 },
    );
    const stream = await client.openEvents(undefined, AbortSignal.timeout(PATIENT_MS));
    const read = async () => {
      for await (const _chunk of stream);
    };
    await expect(read()).rejects.toMatchObject({ code: 'UND_ERR_BODY_TIMEOUT' });
  });

  it('opens no stream of events that BunKMS refuses, and tries once', async () => {
    const { client, calls } = await start((_request, response) => {
      response.writeHead(401);
      response.end('{}');
    });
    await expect(client.openEvents(undefined, AbortSignal.timeout(PATIENT_MS))).rejects.toThrow(
      'BunKMS answered 401',
    );
    expect(calls()).toBe(1);
  });
});
