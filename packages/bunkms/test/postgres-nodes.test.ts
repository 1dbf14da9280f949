import { rmSync } from 'node:fs';
import { needs } from '@bundoc/shared/testing/programs';
import { startInBackground } from '@bundoc/shared/testing/timing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CutConnection } from './support/cut-connection.ts';
import { openEvents } from './support/events.ts';
import { completed, kekIdOfText, rotateKeks, statusOf } from './support/keks.ts';
import { type KmsOptions, newDataDir, newKek, startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { PostgresDatabases, settingsOf } from './support/postgres.ts';
import { useStorage } from './support/storage.ts';
import { usePostgresStorage } from './support/use-postgres-storage.ts';

/** Two nodes in one process, each with separate connections, caches and timers. */
describe('two nodes of BunKMS on one database', needs('postgresql'), () => {
  let databases: PostgresDatabases;
  let dataDir: string;
  const kek = newKek();
  const node = (options: KmsOptions = {}) => startKms({ dataDir, kek, ...options });
  let one: TestKms;
  let other: TestKms;
  let keysOfOne: KeyCalls;
  let keysOfOther: KeyCalls;

  usePostgresStorage((started) => {
    databases = started;
  });
  beforeEach(async () => {
    dataDir = newDataDir();
    one = await node();
    other = await node();
    keysOfOne = await KeyCalls.of(one);
    keysOfOther = await KeyCalls.of(other);
  });
  afterEach(async () => {
    await one[Symbol.asyncDispose]();
    await other[Symbol.asyncDispose]();
    await databases.forget(dataDir);
    rmSync(dataDir, { recursive: true });
  });

  it('both refuse a token for all uses as soon as one of them has revoked it', async () => {
    const { token, jti } = await one.issue({
      scope: ['kms:export_key', 'kms:encrypt', 'kms:admin'],
      keys: ['*'],
    });
    await keysOfOne.create('a-dek');
    const body = { plaintext_b64: '' };
    const uses = () => [
      other.internal('/v1/export/a-dek', { token }),
      other.api('/v1/encrypt/a-dek', { token, body }),
      other.api('/v1/tokens', { token }),
    ];
    for (const use of uses()) expect((await use).status).toBe(200);
    expect(
      (await one.api(`/v1/tokens/${jti}`, { method: 'DELETE', token: await one.fullToken() })).status,
    ).toBe(204);
    for (const use of uses()) expect((await use).status).toBe(401);
    const actions = (await other.records()).map(({ action, outcome, jti: by }) => [action, outcome, by]);
    const revoked = actions.findIndex(([action]) => action === 'token.revoke');
    expect(actions.slice(revoked).filter(([, outcome, by]) => outcome === 'allowed' && by === jti)).toEqual(
      [],
    );
  });

  it.each(['disable', 'schedule', 'shred'] as const)(
    'neither uses a key after the other one has done: %s',
    async (how) => {
      const [ciphertext] = await keysOfOne.make('a-dek', 'enabled');
      const uses = () => [
        keysOfOther.export('a-dek'),
        keysOfOther.export('a-dek', 1),
        keysOfOther.crypto('encrypt', 'a-dek', { plaintext_b64: '' }),
        keysOfOther.crypto('decrypt', 'a-dek', { ciphertext_b64: ciphertext }),
      ];
      for (const use of uses()) expect((await use).status).toBe(200);
      if (how === 'disable') await keysOfOne.post('a-dek', 'disable');
      else if (how === 'schedule') await keysOfOne.delete('a-dek');
      else await keysOfOne.shred('a-dek');
      for (const use of uses()) expect((await use).status).toBe(how === 'shred' ? 410 : 409);
    },
  );

  it('each sends its subscribers the events of the other', async () => {
    const { token } = await other.issue({ scope: ['kms:export_key'], keys: ['*'] });
    using stream = await openEvents(other.running.internalUrl, token);
    await expect.poll(() => stream.seen.at(-1)?.type).toBe('heartbeat');
    await keysOfOne.create('a-dek');
    await keysOfOne.post('a-dek', 'rotate');
    await expect.poll(() => stream.seen.some(({ type }) => type === 'key.rotate')).toBe(true);
  });

  it('let a subscriber of one resume at the other, without gaps or duplicates', async () => {
    const { token } = await one.issue({ scope: ['kms:export_key'], keys: ['*'] });
    await keysOfOne.create('a-dek');
    const first = await openEvents(one.running.internalUrl, token);
    await keysOfOther.post('a-dek', 'rotate');
    const eventsOf = (stream: typeof first) =>
      stream.seen.filter(({ type }) => type !== 'heartbeat').map(({ type, data }) => [type, data.version]);
    await expect
      .poll(() => eventsOf(first))
      .toEqual([
        ['reset', undefined],
        ['key.rotate', 2],
      ]);
    const id = first.seen.findLast((event) => event.id !== undefined)?.id;
    first[Symbol.dispose]();
    await keysOfOne.post('a-dek', 'rotate');
    using second = await openEvents(other.running.internalUrl, token, id);
    await keysOfOther.post('a-dek', 'rotate');
    await expect
      .poll(() => eventsOf(second))
      .toEqual([
        ['key.rotate', 3],
        ['key.rotate', 4],
      ]);
  });

  it('create one key from many requests with the same idempotency key, and give all the same answer', async () => {
    const headers = { 'idempotency-key': 'once' };
    const { token } = await one.issue({ scope: ['kms:create_key'], keys: ['*'] });
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, number) =>
        (number % 2 === 0 ? one : other).api('/v1/keys', {
          token,
          headers,
          body: { name: 'a-dek', type: 'aes-256' },
        }),
      ),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]));
    expect(new Set(answers.map((answer) => answer.json().id)).size).toBe(1);
    expect((await one.records()).filter(({ action }) => action === 'key.create')).toHaveLength(1);
  });

  it('write one chain without gaps during concurrent work', async () => {
    const work = async (keys: KeyCalls, number: number) => {
      const name = `k${number % 7}-dek`;
      await keys.create(name);
      await keys.export(name);
      await keys.post(name, 'rotate');
      await keys.export(name, 1);
      if (number % 5 === 0) await keys.shred(name);
    };
    await Promise.all(
      Array.from({ length: 40 }, (_, number) => work(number % 2 === 0 ? keysOfOne : keysOfOther, number)),
    );
    expect(await one.verify()).toMatchObject({ intact: true });
    expect((await other.records()).map(({ seq }) => seq)).toEqual(
      Array.from({ length: (await other.store.auditHead()).seq }, (_, index) => index + 1),
    );
  });

  it('do not rotate to a KEK that one of them lacks, until it has it', async () => {
    const further = newKek();
    await one[Symbol.asyncDispose]();
    one = await node({ kek: `${kek}\n${further}` });
    keysOfOne = await KeyCalls.of(one);
    await keysOfOther.create('a-dek');
    const answer = await one.api('/v1/kek/rotate', { token: await one.fullToken(), body: {} });
    expect(answer.json()).toMatchObject({ status: 409, code: 'kek_unusable' });
    await other[Symbol.asyncDispose]();
    other = await node({ kek: `${further}\n${kek}` });
    expect((await rotateKeks(one)).current).toBe(kekIdOfText(further));
    expect((await completed(other)).keks).toMatchObject([
      { state: 'previous', versions: 0 },
      { state: 'current', versions: 1 },
    ]);
    keysOfOther = await KeyCalls.of(other);
    expect((await keysOfOther.export('a-dek')).status).toBe(200);
    expect((await statusOf(other)).current).toBe(kekIdOfText(further));
  });
});

/**
 * The deadline of a store whose database hangs, milliseconds. The steps before and after need less, even on a
 * busy machine.
 */
const HASTY_MS = 10_000;

describe('a node whose database hangs', needs('postgresql'), () => {
  it('is alive but not ready, answers 503 with Retry-After, and recovers automatically', async () => {
    await using databases = await PostgresDatabases.start();
    const dataDir = newDataDir();
    const url = await databases.url(dataDir);
    await using cut = await CutConnection.open(databases.server.port);
    const settings = settingsOf(url, {
      port: cut.port,
      deadlineMs: HASTY_MS,
      statementTimeoutMs: HASTY_MS - 500,
      connectTimeoutMs: HASTY_MS - 500,
    });
    useStorage({ kind: 'postgres', ...unused, of: async () => ({ kind: 'postgres', settings }) });
    try {
      await using kms = await startKms({ dataDir });
      const keys = await KeyCalls.of(kms);
      await keys.create('a-dek');
      expect((await kms.api('/ready')).status).toBe(200);
      cut.hang();
      expect((await kms.api('/health')).status).toBe(200);
      const readiness = startInBackground(
        expect.poll(async () => (await kms.api('/ready')).status).toBe(503),
      );
      for (const answer of [keys.export('a-dek'), keys.create('b-dek')]) {
        const { status, headers } = await answer;
        expect([status, headers['retry-after']]).toEqual([503, expect.any(String)]);
      }
      await readiness;
      cut.resume();
      await expect.poll(async () => (await kms.api('/ready')).status).toBe(200);
      expect((await keys.export('a-dek')).status).toBe(200);
      expect((await keys.read('b-dek')).status).toBe(404);
      expect(await kms.verify()).toMatchObject({ intact: true });
    } finally {
      useStorage(undefined);
      rmSync(dataDir, { recursive: true });
    }
  });
});

const unused = {
  holds: () => Promise.resolve(false),
  edit: () => Promise.resolve(),
  forget: () => Promise.resolve(),
};
