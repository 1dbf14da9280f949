import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { createServer, request, type Server } from 'node:http';
import { EventStream } from '@bundoc/shared/http/event-stream';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { revocationDraft } from '../src/records/token-record.ts';
import { type OpenedStream, openEvents } from './support/events.ts';
import { FaultyStore } from './support/faulty-store.ts';
import { newDataDir, newKek, startKms, type TestKms } from './support/kms.ts';

describe('the event stream', () => {
  let clock: FakeClock;
  let faulty: FaultyStore;
  let kms: TestKms;
  let admin: string;
  const installation = { dataDir: '', kek: newKek() };
  const start = () => startKms({ ...installation, clock, decorate: faulty.decorate });
  const service = (keys = ['*'], ttl_s = 86_400) =>
    kms.issue({ sub: 'bundoc', scope: ['kms:export_key'], keys, ttl_s });
  const open = (token: string, lastEventId?: string) =>
    openEvents(kms.running.internalUrl, token, lastEventId);
  const create = (name: string) => kms.api('/v1/keys', { token: admin, body: { name, type: 'aes-256' } });
  const rotate = (name: string) => kms.api(`/v1/keys/${name}/rotate`, { method: 'POST', token: admin });
  /** The events except heartbeats, once there are `count` of them. */
  const received = async (stream: OpenedStream, count: number) => {
    const events = () => stream.seen.filter(({ type }) => type !== 'heartbeat');
    await expect.poll(() => events().length).toBe(count);
    return events();
  };
  const lastId = (stream: OpenedStream) => stream.seen.findLast(({ id }) => id !== undefined)?.id;
  /** The stream, once it has sent its initial events. */
  const begun = async (token: string, lastEventId?: string) => {
    const stream = await open(token, lastEventId);
    // A heartbeat without a place may come before the initial events are complete.
    const isAt = { type: 'heartbeat', id: expect.any(String) };
    await expect.poll(() => stream.seen.at(-1)).toMatchObject(isAt);
    return stream;
  };

  beforeEach(async () => {
    clock = new FakeClock();
    faulty = new FaultyStore();
    installation.dataDir = newDataDir();
    kms = await start();
    admin = await kms.fullToken();
    for (const name of ['a-dek', 'b-dek', 'other']) await create(name);
  });
  afterEach(async () => {
    await kms[Symbol.asyncDispose]();
    rmSync(installation.dataDir, { recursive: true });
  });

  it('begins with a reset, and has the events of the keys that the token is for', async () => {
    using stream = await begun((await service(['*-dek'])).token);
    for (const name of ['a-dek', 'other', 'b-dek']) await rotate(name);
    const [reset, ...events] = await received(stream, 3);
    expect(reset).toEqual({ id: undefined, type: 'reset', data: {} });
    expect(events).toEqual([
      { id: expect.any(String), type: 'key.rotate', data: { name: 'a-dek', version: 2 } },
      { id: expect.any(String), type: 'key.rotate', data: { name: 'b-dek', version: 2 } },
    ]);
    const rotated = (await kms.records()).find(
      ({ action, key }) => action === 'key.rotate' && key === 'a-dek',
    );
    expect(events[0]?.id).toBe(`${rotated?.seq}:${rotated?.hash}`);
  });

  it('has an event for every change in the chain, and none for refusals', async () => {
    using stream = await begun((await service()).token);
    const types = [
      'rotate',
      'enable',
      'disable',
      'schedule_deletion',
      'restore',
      'destroy',
      'destroy_version',
    ];
    const record = (action: string, outcome: 'allowed' | 'refused' = 'allowed') => ({
      time: new Date(clock.now()).toISOString(),
      severity: 'INFO' as const,
      action,
      outcome,
      key: 'a-dek',
      version: 1,
    });
    // Like another process, such as the command line.
    await kms.store.appendAudit([
      record('key.disable', 'refused'),
      record('key.read'),
      ...[...types, 'update'].map((type) => record(`key.${type}`)),
    ]);
    const [, ...events] = await received(stream, 9);
    expect(events.map(({ type }) => type)).toEqual([...types, 'update'].map((type) => `key.${type}`));
  });

  it('has revoked tokens: earlier ones at the start, later ones at once', async () => {
    const [old, expired, late] = [await service(), await service(['*'], 60), await service()];
    for (const { jti } of [old, expired])
      await kms.api(`/v1/tokens/${jti}`, { method: 'DELETE', token: admin });
    clock.advance(61_000);
    using stream = await begun((await service()).token);
    expect((await received(stream, 2))[1]).toEqual({
      id: undefined,
      type: 'token.revoke',
      data: { jti: old.jti, family: old.family, expires_at: old.expires_at },
    });
    await kms.api(`/v1/tokens/${late.jti}`, { method: 'DELETE', token: admin });
    expect((await received(stream, 3))[2]).toMatchObject({
      id: expect.any(String),
      data: { jti: late.jti, family: late.family, expires_at: late.expires_at },
    });
  });

  it('has revoked tokens that have not ended, when the clock was set forward past their end', async () => {
    const startMs = clock.now();
    const token = await service(['*'], 3_600);
    await kms.api(`/v1/tokens/${token.jti}`, { method: 'DELETE', token: admin });
    const { token: another } = await service();
    clock.setWall(startMs + 3 * 3_600_000);
    using stream = await begun(another);
    expect((await received(stream, 2))[1]).toMatchObject({ type: 'token.revoke', data: { jti: token.jti } });
  });

  it('resumes where it was cut off, across a restart, without gaps or duplicates', async () => {
    const { token } = await service(['*-dek']);
    const first = await begun(token);
    await rotate('a-dek');
    await received(first, 2);
    const id = lastId(first);
    first[Symbol.dispose]();
    await rotate('b-dek');
    await kms.internal('/v1/export/a-dek', { token });
    await kms[Symbol.asyncDispose]();
    kms = await start();
    await rotate('other');
    await rotate('a-dek');
    using second = await begun(token, id);
    await rotate('b-dek');
    expect((await received(second, 3)).map(({ type, data }) => [type, data.name, data.version])).toEqual([
      ['key.rotate', 'b-dek', 2],
      ['key.rotate', 'a-dek', 3],
      ['key.rotate', 'b-dek', 3],
    ]);
  });

  it.each([
    ['none', () => ''],
    ['no place', () => 'x'],
    ['of the future', (id: string) => id.replace(/^\d+/, '999999')],
    ['of another chain', (id: string) => id.replace(/:.*/, `:${'0'.repeat(64)}`)],
  ])('begins again for a place that is %s', async (_what, change) => {
    const { token } = await service();
    const first = await begun(token);
    const id = String(lastId(first));
    first[Symbol.dispose]();
    using again = await begun(token, change(id));
    expect(again.seen[0]?.type).toBe('reset');
    using same = await begun(token, id);
    expect(new Set(same.seen.map(({ type }) => type))).toEqual(new Set(['heartbeat']));
  });

  it('begins again for a place that is too old', async () => {
    const { token } = await service();
    const first = await begun(token);
    const id = lastId(first);
    first[Symbol.dispose]();
    const time = new Date(clock.now()).toISOString();
    const issue = { time, severity: 'INFO', action: 'token.issue', outcome: 'allowed' } as const;
    for (let n = 0; n < 3; n++) await kms.store.appendAudit(Array.from({ length: 400 }, () => issue));
    using again = await begun(token, id);
    expect(again.seen[0]?.type).toBe('reset');
  });

  it.each(['key.read', 'key.list', 'key.leases', 'key.export'])(
    'resumes after any number of records of %s, and has the change behind them',
    async (action) => {
      const { token } = await service();
      const first = await begun(token);
      const id = lastId(first);
      first[Symbol.dispose]();
      const time = new Date(clock.now()).toISOString();
      const read = { time, severity: 'INFO', action, outcome: 'allowed' } as const;
      for (let n = 0; n < 3; n++) await kms.store.appendAudit(Array.from({ length: 400 }, () => read));
      await kms.api('/v1/keys/a-dek/disable', { method: 'POST', token: admin });
      using again = await begun(token, id);
      expect((await received(again, 1)).map(({ type, data }) => [type, data.name])).toEqual([
        ['key.disable', 'a-dek'],
      ]);
    },
  );

  it('has after a reset the keys of the token that were withdrawn while a reader may have them, and no others', async () => {
    const change = (action: string, key: string) => ({
      time: new Date(clock.now()).toISOString(),
      severity: 'INFO' as const,
      outcome: 'allowed' as const,
      action,
      key,
      version: 1,
    });
    const { token } = await service(['*-dek']);
    await kms.store.appendAudit([change('key.destroy', 'long-ago-dek')]);
    clock.advance(30 * 60_000);
    await kms.store.appendAudit([
      ...['other', 'a-dek', 'b-dek'].map((name) => change('key.disable', name)),
      ...['key.rotate', 'key.enable', 'key.read', 'key.schedule_deletion'].map((type) =>
        change(type, 'c-dek'),
      ),
      // More than a page.
      ...Array.from({ length: 600 }, () => change('token.issue', 'none')),
      change('key.destroy', 'd-dek'),
    ]);
    clock.advance(14 * 60_000);
    using stream = await begun(token);
    expect((await received(stream, 5)).map(({ id, type, data }) => [id, type, data.name])).toEqual([
      [undefined, 'reset', undefined],
      [undefined, 'key.disable', 'a-dek'],
      [undefined, 'key.disable', 'b-dek'],
      [undefined, 'key.schedule_deletion', 'c-dek'],
      [undefined, 'key.destroy', 'd-dek'],
    ]);
  });

  it('ends when its token is revoked, and when it expires', async () => {
    const [revoked, short] = [await service(), await service(['*'], 60)];
    using first = await begun(revoked.token);
    using second = await begun(short.token);
    await kms.api(`/v1/tokens/${revoked.jti}`, { method: 'DELETE', token: admin });
    await expect.poll(() => first.isEnded).toBe(true);
    expect(second.isEnded).toBe(false);
    clock.advance(60_000);
    await expect.poll(() => second.isEnded).toBe(true);
    expect((await open(revoked.token)).status).toBe(401);
  });

  it('ends for a token that was revoked while the stream was being opened', async () => {
    const issued = await service();
    const { token } = issued;
    faulty.replaced.auditHead = async (real) => {
      await kms.store.revokeFamilies([revocationDraft({}, new Date(clock.now()).toISOString(), issued)]);
      return real();
    };
    using stream = await open(token);
    await expect.poll(() => stream.isEnded).toBe(true);
  });

  it('is recorded, and is not opened when that fails', async () => {
    const { token, jti } = await service();
    using _stream = await begun(token);
    expect((await kms.records()).at(-1)).toMatchObject({ action: 'events.open', actor: 'bundoc', jti });
    faulty.replaced.appendAudit = () => Promise.reject(new Error('no disk'));
    expect((await open(token)).status).toBe(503);
  });

  it('is opened a limited number of times for one token, and again when others end', async () => {
    const { token } = await service();
    const streams: OpenedStream[] = [];
    for (let n = 0; n < 16; n++) streams.push(await open(token));
    expect((await open(token)).status).toBe(429);
    expect((await open((await service()).token)).status).toBe(200);
    streams[0]?.[Symbol.dispose]();
    await expect.poll(async () => (await open(token)).status).toBe(200);
  });

  it('is silent while the chain cannot be read, so that it counts as dead, and then continues', async () => {
    using stream = await begun((await service()).token);
    const beats = () => stream.seen.filter(({ type }) => type === 'heartbeat').length;
    let looks = 0;
    faulty.replaced.listAudit = () => {
      looks++;
      return Promise.reject(new Error('no disk'));
    };
    await rotate('a-dek');
    clock.advance(60_000);
    await expect.poll(() => looks).toBeGreaterThan(2);
    expect(beats()).toBe(1);
    delete faulty.replaced.listAudit;
    await received(stream, 2);
    await expect.poll(beats).toBe(2);
    expect(kms.logs.filter((line) => line.includes('events are delayed'))).toHaveLength(1);
  });

  it('does not delay the stop of the service', async () => {
    using stream = await begun((await service()).token);
    // No timeout that it might wait for fires.
    vi.useFakeTimers({ toFake: ['setTimeout'] });
    try {
      await kms.running.close();
    } finally {
      vi.useRealTimers();
    }
    await expect.poll(() => stream.isEnded).toBe(true);
  });
});

describe('a reader that does not read', () => {
  let server: Server;
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });

  it('is cut off, and its events are not buffered', async () => {
    const opened = Promise.withResolvers<EventStream>();
    server = createServer((_request, response) => opened.resolve(new EventStream(response)));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const sent = request({ port, host: '127.0.0.1', agent: false }, (response) => response.pause());
    sent.on('error', () => undefined);
    sent.end();
    const stream = await opened.promise;
    const block = `data: ${'x'.repeat(65_536)}\n\n`;
    let blocks = 0;
    for (; !stream.isClosed && blocks < 10_000; blocks++) {
      stream.send(block);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(stream.isClosed).toBe(true);
    await stream.drained();
    stream.send(block);
    sent.destroy();
  });
});
