import { createLogger } from '@bundoc/shared/logs/logger';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { KmsClient } from '../src/kms/client.ts';
import { CALL_DEADLINE_MS } from '../src/kms/transport.ts';
import {
  answer,
  cleanups,
  exported,
  problem,
  startScripted,
  useScriptedKms,
} from './support/scripted-kms.ts';

useScriptedKms();

describe('KmsClient', () => {
  it.each([429, 502, 503, 504])('retries after %d', async (status) => {
    const { client, calls } = await startScripted((_request, response, call) =>
      call < 3 ? problem(response, status, 'overloaded') : answer(response, 200, exported()),
    );
    await client.exportKey('p-dek');
    expect(calls()).toBe(3);
  });

  it('retries after a connection that broke before or during an answer', async () => {
    const { client, calls } = await startScripted((_request, response, call) => {
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
    const { client, calls } = await startScripted((_request, response) => problem(response, status, code));
    await expect(client.exportKey('p-dek')).rejects.toMatchObject({ code: said });
    expect(calls()).toBe(1);
  });

  it.each([
    [401, 'unauthenticated', 'BUNDOC_KMS_TOKEN_FILE'],
    [403, 'forbidden', 'BUNDOC_KMS_TOKEN_FILE'],
    [404, 'not_found', 'BUNDOC_KMS_URL'],
    [503, 'sealed', 'another KEK'],
  ])('tells the operator what to do about %d %s', async (status, code, remedy) => {
    const { client, lines } = await startScripted((_request, response) => problem(response, status, code));
    await client.exportKey('p-dek').catch(() => undefined);
    expect(lines.join('')).toContain(remedy);
    const signal = AbortSignal.timeout(5_000);
    await expect(client.openEvents(undefined, signal)).rejects.toThrow(remedy);
  });

  it('waits as long as Retry-After says', async () => {
    const times: number[] = [];
    const { client } = await startScripted((_request, response, call) => {
      times.push(performance.now());
      if (call === 1) problem(response, 503, 'overloaded', { 'retry-after': '1' });
      else answer(response, 200, exported());
    });
    await client.exportKey('p-dek');
    expect(times[1]! - times[0]!).toBeGreaterThanOrEqual(995);
  });

  it('gives up at once when Retry-After exceeds its deadline, and passes the time on', async () => {
    const { client, calls } = await startScripted((_request, response) =>
      problem(response, 503, 'overloaded', { 'retry-after': '60' }),
    );
    await expect(client.exportKey('p-dek')).rejects.toMatchObject({
      code: 'kms_unavailable',
      retryAfterS: 60,
    });
    expect(calls()).toBe(1);
  });

  it('gives up on a frozen server within its deadline, for many callers at once', async () => {
    const { client } = await startScripted(() => undefined);
    const started = performance.now();
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => client.exportKey('p-dek')));
    expect(outcomes.every(({ status }) => status === 'rejected')).toBe(true);
    // Concurrently: one after the other they would take twenty times as long.
    expect(performance.now() - started).toBeLessThan(10 * CALL_DEADLINE_MS);
    expect(CALL_DEADLINE_MS).toBeLessThan(5_000);
  });

  it('ends running calls silently when it is closed', async () => {
    const { client, calls, lines } = await startScripted((_, response, call) => {
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
    const { client } = await startScripted(() => undefined);
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
    expect(await elsewhere.outage()).toMatchObject({ code: 'ECONNREFUSED' });
    expect(await client.outage()).toMatchObject({ name: 'TimeoutError' });
  });

  it('says why BunKMS is not ready, or that something else answers', async () => {
    let status = 200;
    const { client } = await startScripted((_request, response) => answer(response, status, {}));
    expect(await client.outage()).toBeUndefined();
    status = 503;
    expect(await client.outage()).toMatchObject({ message: '/ready answered 503: its own log says why' });
    status = 404;
    expect(await client.outage()).toMatchObject({
      message: '/ready answered 404: is it the internal listener of BunKMS?',
    });
  });

  it.each([
    ['another name', { name: 'q-dek' }, 'key_mismatch'],
    ['a wrong check value', { kcv: '0'.repeat(32) }, 'key_mismatch'],
    ['a short key', { key_material_b64: 'AAAA' }, 'kms_unavailable'],
    ['another algorithm', { algorithm: 'AES-128-GCM' }, 'kms_unavailable'],
  ])('refuses an answer with %s', async (_name, overrides, code) => {
    const { client } = await startScripted((_request, response) =>
      answer(response, 200, exported(overrides)),
    );
    await expect(client.exportKey('p-dek')).rejects.toMatchObject({ code });
  });

  it('refuses an answer that is not JSON or too large, without repeating it', async () => {
    const { client, lines } = await startScripted((_request, response, call) => {
      if (call === 1) response.end('planted-secret {');
      else response.end('planted-secret '.repeat(10_000));
    });
    for (let n = 0; n < 2; n++) {
      const error: unknown = await client.exportKey('p-dek').catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'kms_unavailable' });
    }
    expect(lines.join('')).not.toContain('planted-secret');
  });
});

describe('the stream of events of KmsClient', () => {
  it('opens with its token and its position, and ends on request', async () => {
    const lastEventIds: unknown[] = [];
    const { client, seen } = await startScripted((request, response) => {
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

  it('counts as dead when it is silent', async () => {
    const { client } = await startScripted(
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

  it('fails after one try when BunKMS refuses it', async () => {
    const { client, calls } = await startScripted((_request, response) => {
      response.writeHead(401);
      response.end('{}');
    });
    await expect(client.openEvents(undefined, AbortSignal.timeout(PATIENT_MS))).rejects.toThrow(
      'BunKMS answered 401',
    );
    expect(calls()).toBe(1);
  });
});
