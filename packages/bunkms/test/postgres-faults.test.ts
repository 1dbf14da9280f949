import { randomUUID } from 'node:crypto';
import type { AuditReceipt } from '@bundoc/shared/contract/keys';
import { runOn } from '@bundoc/shared/postgres/run';
import { checkServer } from '@bundoc/shared/postgres/server-check';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { startInBackground } from '@bundoc/shared/testing/timing';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { verifyChain } from '../src/records/chain.ts';
import {
  chainKey,
  draft,
  installation,
  issueOf,
  KEK,
  key,
  made,
  OTHER_KEK,
  revocationOf,
  rotated,
  token,
} from '../src/store/conformance/data.ts';
import type { KmsStore } from '../src/store/port.ts';
import { openPostgresStore } from '../src/store/postgres/postgres-store.ts';
import { CutConnection } from './support/cut-connection.ts';
import { PostgresDatabases, settingsOf } from './support/postgres.ts';

const UNAVAILABLE = { code: 'storage_unavailable' };
/**
 * The deadline of a store whose database hangs, milliseconds. The steps before need less, even on a busy
 * machine.
 */
const HASTY_MS = 10_000;

describe('a store in PostgreSQL, when something fails,', needs('postgresql'), () => {
  let databases: PostgresDatabases;
  let place: string;
  let url: string;
  let cut: CutConnection;
  let store: KmsStore;
  const open = (
    more: Parameters<typeof settingsOf>[1] = {},
    warn: (message: string) => void = () => undefined,
  ) => openPostgresStore({ settings: settingsOf(url, more), warn });
  const records = async () => (await store.listAudit({ limit: 1_000 })).items;

  beforeAll(async () => {
    databases = await PostgresDatabases.start();
  });
  afterAll(() => databases[Symbol.asyncDispose]());
  beforeEach(async () => {
    place = randomUUID();
    url = await databases.url(place);
    cut = await CutConnection.open(databases.server.port);
    store = await open({ port: cut.port });
    await store.initialise(installation(1), chainKey, made());
  });
  afterEach(async () => {
    await store.close();
    await cut[Symbol.asyncDispose]();
    await databases.forget(place);
  });

  it.each(['before', 'after'] as const)(
    'determines the outcome of a write whose connection broke %s its commit, and applies it once',
    async (how) => {
      cut.cutNext(how);
      const first = key('a-dek');
      expect(await store.insertKey(first)).toBeUndefined();
      cut.cutNext(how);
      const second = rotated(first);
      const receipt = await store.updateKey(second);
      expect(receipt).toEqual(await store.auditHead());
      cut.cutNext(how);
      const released = await store.appendAudit(
        [draft('key.export', { key: 'a-dek' })],
        [{ key: second.record }],
      );
      expect(released).toEqual([await store.auditHead()]);
      expect(cut.cuts).toBe(3);
      expect((await records()).map(({ action }) => action)).toEqual([
        'vault.initialised',
        'key.create',
        'key.rotate',
        'key.export',
      ]);
      expect(await verifyChain(chainKey, await records())).toMatchObject({ intact: true });
    },
  );

  it.each([1, 2, 3])(
    'applies each of many writes of two nodes once, although every third commit is cut (seed %i)',
    async (seed) => {
      let state = seed;
      const random = () => {
        state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
        return state / 2 ** 32;
      };
      const nodes = [await open({ port: cut.port }), await open({ port: cut.port })] as const;
      for (const node of nodes) await node.unlock(chainKey);
      cut.cutWhen(() => (random() < 1 / 3 ? (random() < 0.5 ? 'before' : 'after') : undefined));
      const receipts: AuditReceipt[] = [];
      const work = async (node: KmsStore, worker: number) => {
        for (let step = 0; step < 4; step++) {
          const first = key(`${worker}-${step}`);
          expect(await node.insertKey(first)).toBeUndefined();
          const second = rotated(first);
          const changed = await node.updateKey(second);
          const [released] = await node.appendAudit(
            [draft('key.export', { key: first.record.name })],
            [{ key: second.record }],
          );
          if (changed === undefined || typeof released !== 'object') throw new Error('a write was refused');
          receipts.push(changed, released);
        }
      };
      await Promise.all(
        Array.from({ length: 8 }, (_, worker) => work(nodes[worker % 2] ?? nodes[0], worker)),
      );
      cut.cutWhen(() => undefined);
      for (const node of nodes) await node.close();
      const all = await records();
      expect(all).toHaveLength(1 + 3 * 32);
      expect(await verifyChain(chainKey, all, receipts)).toMatchObject({ intact: true });
      expect(new Set(receipts.map(({ seq }) => seq)).size).toBe(64);
      expect(cut.cuts).toBeGreaterThan(3);
    },
  );

  it('commits waiting writes together, and answers each separately', async () => {
    const [held, ...others] = Array.from({ length: 40 }, (_, number) => key(`k${number}`));
    if (held === undefined) throw new Error('no key was made');
    const results = await Promise.allSettled([
      store.insertKey(held),
      ...others.map((one) => store.insertKey(one)),
      ...others.map(({ record }) => store.insertKey(key(record.name))),
    ]);
    const codes = results.map((one) => (one.status === 'rejected' ? one.reason.code : one.value));
    expect(codes.slice(0, 40)).toEqual(Array.from({ length: 40 }, () => undefined));
    expect(codes.slice(40)).toEqual(Array.from({ length: 39 }, () => 'key_exists'));
    expect(await records()).toHaveLength(41);
    const transactions = new Set(
      (await admin('SELECT write_id FROM bunkms.audit')).rows.map((row) => row.write_id),
    );
    expect(transactions.size).toBeLessThan(10);
  });

  it('answers within its deadline when the database hangs, even during a commit', async () => {
    await store.close();
    store = await open({ port: cut.port, deadlineMs: HASTY_MS, statementTimeoutMs: HASTY_MS - 500 });
    await store.unlock(chainKey);
    cut.cutNext('hang');
    const write = startInBackground(store.insertKey(key('a-dek')));
    await expect.poll(() => cut.cuts).toBe(1);
    cut.hang();
    const calls = [
      write,
      store.auditHead(),
      store.findActiveTokenFamily('x'),
      store.probe(),
      store.findKey('a', 'all'),
    ];
    await Promise.all(calls.map((call) => expect(call).rejects.toMatchObject(UNAVAILABLE)));
    // Otherwise the end of the store waits for its connections.
    cut.resume();
  });

  it('lets other nodes continue when one hangs during a write', async () => {
    const stopped = new pg.Client({ connectionString: url });
    stopped.on('error', () => undefined);
    await stopped.connect();
    await stopped.query("SET idle_in_transaction_session_timeout = '300ms'");
    await stopped.query(`BEGIN; SELECT pg_advisory_xact_lock(${BigInt('0x62756e6b6d7302')})`);
    expect(await store.appendAudit([draft('a')])).toMatchObject([{ seq: 2 }]);
    await stopped.end();
  });

  it('fails without writing when others hold the lock of the chain for too long', async () => {
    const other = new pg.Client({ connectionString: url });
    await other.connect();
    await other.query(`BEGIN; SELECT pg_advisory_xact_lock(${BigInt('0x62756e6b6d7302')})`);
    await using hurried = await open({ lockTimeoutMs: 200, deadlineMs: HASTY_MS });
    await hurried.unlock(chainKey);
    await expect(hurried.appendAudit([draft('a')])).rejects.toMatchObject(UNAVAILABLE);
    await other.query('ROLLBACK');
    await other.end();
    expect(await hurried.appendAudit([draft('b')])).toMatchObject([{ seq: 2 }]);
  });

  it('refuses a schema of a newer release', async () => {
    await databases.edit(place, `INSERT INTO migrations (number) VALUES (9999)`);
    await expect(open()).rejects.toMatchObject({
      ...UNAVAILABLE,
      cause: { message: expect.stringMatching(/schema 9999, .*bundoc export/) as string },
    });
    await databases.edit(place, 'DELETE FROM migrations WHERE number = 9999');
    await (await open()).close();
  });

  it('warns of a server that may lose acknowledged writes', async () => {
    const warnings: string[] = [];
    await (await open({}, (message) => warnings.push(message))).close();
    expect(warnings).toEqual([
      expect.stringContaining('fsync off') as string,
      expect.stringContaining('before a standby has them') as string,
    ]);
  });

  it('warns of a node whose clock differs', async () => {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    const warningsAt = async (aheadS: number) =>
      (await checkServer(runOn(client), 'BUNKMS_STORAGE', Date.now() + aheadS * 1_000)).filter((one) =>
        one.includes('clock'),
      );
    expect(await warningsAt(0)).toEqual([]);
    expect(await warningsAt(3_600)).toEqual([expect.stringContaining('s ahead of') as string]);
    expect(await warningsAt(-3_600)).toEqual([expect.stringContaining('s behind') as string]);
    await client.end();
  });

  it('determines running services and holders of tasks by the clock of the database', async () => {
    const other = await open();
    await other.unlock(chainKey);
    const at = (hours: number, seconds = 0) =>
      new Date(Date.now() + hours * 3_600_000 + seconds * 1_000).toISOString();
    // One clock is two hours behind, the other two hours ahead.
    await store.announce({ service: 'one', kekIds: [KEK], now: at(-2), until: at(-2, 600) });
    const ofAll = { kekHeldByAllNodes: { kekId: OTHER_KEK, now: at(2) } };
    await other.claim({ task: 't', holder: 'two', now: at(2), until: at(2, 600) });
    expect(await other.appendAudit([draft('kek.rotate')], [ofAll])).toEqual(['kek_not_held']);
    expect(await store.claim({ task: 't', holder: 'one', now: at(-2), until: at(-2, 600) })).toBe(false);
    await other.close();
  });

  it('does not release a key that another node has changed, or with a token that it has revoked', async () => {
    await using other = await open();
    await other.unlock(chainKey);
    const [first, bearer] = [key('a-dek'), token()];
    await store.insertKey(first);
    await store.insertToken(bearer, issueOf(bearer));
    const release = (node: KmsStore) =>
      node.appendAudit([draft('key.export', { key: 'a-dek' })], [{ key: first.record, jti: bearer.jti }]);
    expect(await release(other)).toMatchObject([{ seq: 4 }]);
    await store.revokeFamilies([revocationOf(bearer)]);
    expect(await release(other)).toEqual(['token_revoked']);
    await store.updateKey(rotated(first));
    expect(await other.appendAudit([draft('key.export', { key: 'a-dek' })], [{ key: first.record }])).toEqual(
      ['key_changed'],
    );
  });

  async function admin(sql: string): Promise<pg.QueryResult> {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    try {
      return await client.query(sql);
    } finally {
      await client.end();
    }
  }
});

describe('a store in PostgreSQL with a standby', needs('postgresql'), () => {
  let primary: PostgresServer;
  let standby: PostgresServer;
  let url: string;
  beforeAll(async () => {
    primary = await PostgresServer.start();
    ({ url } = await primary.createDatabase('kms'));
    standby = await primary.startStandby('standby');
  });
  afterAll(async () => {
    await standby[Symbol.asyncDispose]();
    await primary[Symbol.asyncDispose]();
  });

  it('opens only on the primary', async () => {
    const warnings: string[] = [];
    const settings = settingsOf(url);
    await (await openPostgresStore({ settings, warn: (message) => warnings.push(message) })).close();
    expect(warnings).toEqual([expect.stringContaining('fsync off') as string]);
    await expect(
      openPostgresStore({ settings: settingsOf(url, { port: standby.port }), warn: () => undefined }),
    ).rejects.toMatchObject({ ...UNAVAILABLE, cause: { name: 'NotPrimary' } });
  });

  it('does not acknowledge a write whose wait for the standby was canceled, and then continues', async () => {
    const settings = settingsOf(url);
    await using store = await openPostgresStore({ settings, warn: () => undefined });
    await store.initialise(installation(1), chainKey, made());
    await primary.sql(`ALTER SYSTEM SET synchronous_standby_names = 'nobody'`);
    await primary.sql('SELECT pg_reload_conf()');
    // Until the WAL sender has read the setting, commits do not wait.
    await expect.poll(() => primary.sql('SELECT sync_state FROM pg_stat_replication')).toBe('async');
    const waiting = store.appendAudit([draft('key.export')]);
    const outcome = expect(waiting).rejects.toMatchObject({
      ...UNAVAILABLE,
      cause: { name: 'NotReplicated' },
    });
    const cancel = `SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`;
    await expect.poll(() => primary.sql(cancel)).toBe('1');
    await outcome;
    await primary.sql(`ALTER SYSTEM SET synchronous_standby_names = 'standby'`);
    await primary.sql('SELECT pg_reload_conf()');
    expect(await store.appendAudit([draft('next')])).toMatchObject([{ seq: 3 }]);
  });
});
