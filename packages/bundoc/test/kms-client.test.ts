import { randomUUID } from 'node:crypto';
import { createLogger } from '@bundoc/shared/logs/logger';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { describe, expect, it } from 'vitest';
import type { KmsClient } from '../src/kms/client.ts';
import { ClockSkew } from '../src/kms/clock-skew.ts';
import { KeyRefused } from '../src/kms/port.ts';
import {
  ACTING,
  answer,
  dek,
  exported,
  MOVE,
  OTHER,
  problem,
  startScripted,
  useScriptedKms,
} from './support/scripted-kms.ts';

useScriptedKms();

describe('KmsClient', () => {
  it('exports a key with its service token, and returns only a KeyObject of it', async () => {
    const { client, seen } = await startScripted((_request, response) => answer(response, 200, exported()));
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
    const { client, seen } = await startScripted((_request, response, call) =>
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
    const { client, calls } = await startScripted((_request, response) => problem(response, 409, code));
    await expect(client.createKey('p-dek', ACTING)).rejects.toMatchObject({ code: said });
    expect(calls()).toBe(1);
  });

  it('immediately reports which storage holds a key', async () => {
    const { client, calls } = await startScripted((_request, response) =>
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
      id: randomUUID(),
      name: 'p-dek',
      state: 'destroyed',
      revision: 3,
      destroyed_at: '2026-01-01T00:00:00.000Z',
      kek_ids: ['ab'],
      audit: receipt,
    };
    const { client, seen } = await startScripted((request, response) => {
      if (request.url?.startsWith('/v1/export')) answer(response, 200, exported());
      else if (request.url?.endsWith('/deletion-intent')) answer(response, 200, intent);
      else if (request.url?.endsWith('/shred')) answer(response, 200, destroyed);
      else answer(response, request.url === '/v1/keys' ? 201 : 200, {});
    });
    await client.createKey('p-dek', ACTING);
    await client.exportKey('p-dek', 1, ACTING);
    await client.claimKey('p-dek', ACTING);
    expect(await client.intendDeletion('p-dek', 'root-1', ACTING)).toEqual(intent);
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
      ['POST /v1/keys', { name: 'p-dek', type: 'aes-256', storage, generation }],
      [`GET /v1/export/p-dek?storage=${storage}&generation=${generation}&version=1`, undefined],
      [key('claim'), { storage, generation }],
      [key('deletion-intent'), { storage, generation, client: 'root-1' }],
      [key('shred'), { storage, generation, receipt }],
      [key('content-removed'), { storage, generation }],
      [key('offer'), { storage, generation, to: OTHER, move: MOVE }],
      [key('withdraw'), { storage, generation, move: MOVE }],
      [key('accept'), { storage, generation, move: MOVE }],
    ]);
  });

  it('reads the unfinished deletions of its storage page by page', async () => {
    const entry = (name: string) => ({
      name,
      state: 'destroyed',
      receipt: { seq: 7, hash: 'ab' },
      intended_at: '2026-01-01T00:00:00.000Z',
    });
    const { client, seen } = await startScripted((_request, response, call) =>
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

  it('lists the projects whose keys a storage holds, page after page, without deleted ones', async () => {
    const key = (name: string, more: object = {}) => ({
      id: OTHER,
      name,
      type: 'aes-256',
      state: 'enabled',
      version: 1,
      revision: 1,
      exportable: true,
      rotate_after_days: null,
      kcv: '',
      created_at: '2026-01-01T00:00:00.000Z',
      holder: ACTING.storage,
      ...more,
    });
    const pages = [
      [
        key('a-dek'),
        key('b-dek', { holder: OTHER }),
        key('c-dek', { holder: undefined }),
        key('other'),
      ].concat(
        // Names that no project can have.
        ['a_b-dek', 'a.b-dek', `${'x'.repeat(70)}-dek`].map((name) => key(name)),
      ),
      [key('d-dek', { holder: 'unknown' }), key('e-dek', { state: 'destroyed' })],
      [
        key('f-dek', { state: 'pending_deletion', deletion_intended_at: '2026-01-01T00:00:00.000Z' }),
        key('g-dek', { state: 'disabled' }),
        key('h-dek', { state: 'pending_deletion' }),
      ],
    ];
    const { client, seen } = await startScripted((_request, response, call) =>
      answer(response, 200, {
        keys: pages[call - 1],
        damaged: ['x-dek'],
        ...(call < 3 ? { next_cursor: `p${call}` } : {}),
      }),
    );
    const found: (readonly string[])[] = [];
    for await (const page of client.heldProjects(ACTING.storage)) found.push(page);
    expect(found).toEqual([['a'], [], ['g', 'h']]);
    expect(seen.map(({ url }) => url)).toEqual([
      '/v1/keys?limit=50',
      '/v1/keys?limit=50&cursor=p1',
      '/v1/keys?limit=50&cursor=p2',
    ]);
  });

  it('advances a storage from the generations that it may have', async () => {
    const info = {
      id: ACTING.storage,
      generation: OTHER,
      taken_over_ms: 2,
      advanced_at: '2026-01-01T00:00:00.000Z',
    };
    const { client, seen } = await startScripted((_request, response, call) =>
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

  it('sends an intent once, because an abandoned attempt could arrive after its cancellation', async () => {
    const { client, calls } = await startScripted((_request, response) =>
      problem(response, 503, 'storage_unavailable'),
    );
    await expect(client.intendDeletion('p-dek', 'root-1', ACTING)).rejects.toMatchObject({
      code: 'kms_unavailable',
    });
    expect(calls()).toBe(1);
  });

  it.each([
    [429, 'rate_limited', 'your share of deletions is in use'],
    [503, 'overloaded', 'the service has no deletions to spare'],
  ])('passes on that an intent is refused with %s %s, with its time', async (status, code, detail) => {
    const { client, calls } = await startScripted((_request, response) =>
      problem(response, status, code, { 'retry-after': '7' }),
    );
    await expect(client.intendDeletion('p-dek', 'root-1', ACTING)).rejects.toMatchObject({
      code,
      detail,
      retryAfterS: 7,
    });
    expect(calls()).toBe(1);
  });

  it('reports the missing scope of its token for destroying keys', async () => {
    const { client } = await startScripted((_request, response) => problem(response, 403, 'forbidden'));
    for (const refused of [
      client.intendDeletion('p-dek', 'root-1', ACTING),
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
    const { client } = await startScripted((_request, response) => problem(response, 410, 'key_destroyed'));
    await expect(client.createKey('p-dek')).rejects.toMatchObject({ code: 'project_destroyed' });
  });

  it('logs neither its token nor a key', async () => {
    const { client, lines } = await startScripted((_request, response, call) =>
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
      const { client } = await startScripted((_request, response) => {
        response.writeHead(status, { 'content-type': 'application/json' });
        response.end(JSON.stringify(code === undefined ? {} : { code }));
      });
      const error: unknown = await client.exportKey('p-dek').catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'kms_unavailable' });
      expect((error as Error).cause instanceof KeyRefused).toBe(isRefused);
    },
  );
});

describe('the skew that KmsClient measures', () => {
  const HOUR_MS = 3_600_000;
  const logger = createLogger({ service: 'bundoc', level: 'silent' });

  /** BunKMS or a proxy, an hour behind, with this status. */
  const behind = (status: number) => {
    const skew = new ClockSkew({ clock: systemClock, logger });
    const started = startScripted(
      (_request, response) => {
        response.setHeader('date', new Date(Date.now() - HOUR_MS).toUTCString());
        answer(response, status, exported());
      },
      { skew, deadlineMs: 1_000 },
    );
    return { skew, started };
  };

  it.each<[string, (client: KmsClient) => Promise<unknown>]>([
    ['a call', (client) => client.exportKey('p-dek')],
    ['the probe', (client) => client.outage()],
    ['the stream of events', (client) => client.openEvents(undefined, new AbortController().signal)],
  ])('is that of the answer to %s', async (_what, ask) => {
    const { skew, started } = behind(200);
    const { client } = await started;
    await ask(client);
    expect(skew.seconds).toBeLessThan(-3_590);
  });

  it.each<[string, (client: KmsClient) => Promise<unknown>]>([
    ['a call', (client) => client.exportKey('p-dek').catch(String)],
    ['the probe', (client) => client.outage()],
    [
      'the stream of events',
      (client) => client.openEvents(undefined, new AbortController().signal).catch(String),
    ],
  ])('is not that of a proxy that answers 502 to %s', async (_what, ask) => {
    const { skew, started } = behind(502);
    const { client } = await started;
    await ask(client);
    expect(skew.seconds).toBeUndefined();
  });
});
