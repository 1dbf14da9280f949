import { AppError } from '@bundoc/shared/contract/app-error';
import { needs } from '@bundoc/shared/testing/programs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { KmsStore } from '../src/store/port.ts';
import { FaultyStore } from './support/faulty-store.ts';
import { startKms, type TestKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { plant } from './support/planted-trigger.ts';
import { testStorage } from './support/storage.ts';
import { usePostgresStorage } from './support/use-postgres-storage.ts';

const NAME = 'a-dek';

describe('the checks of BunKMS on SQLite', () => checksBesideWrites());

describe('the checks of BunKMS on PostgreSQL', needs('postgresql'), () => {
  usePostgresStorage();
  checksBesideWrites();
});

/** What runs before and after the next check reads the head of the chain. */
interface Hooks {
  before?: () => Promise<unknown>;
  after?: () => Promise<unknown>;
  /** Called when a check has told the store what it expects. */
  onExpected?: () => void;
  /** Called at each check. */
  onHead?: () => void;
}

function checksBesideWrites(): void {
  let kms: TestKms;
  let keys: KeyCalls;
  let hooks: Hooks;
  let faulty: FaultyStore;
  const decorate = (store: KmsStore): KmsStore => ({
    ...faulty.decorate(store),
    auditHead: async () => {
      const { before, after } = hooks;
      hooks = { ...hooks, before: async () => undefined, after: async () => undefined };
      await before?.();
      const head = await store.auditHead();
      await after?.();
      hooks.onHead?.();
      return head;
    },
    expectHead: async (head) => {
      await store.expectHead(head);
      hooks.onExpected?.();
    },
  });
  beforeEach(async () => {
    hooks = {};
    faulty = new FaultyStore();
    kms = await startKms({ decorate });
    keys = await KeyCalls.of(kms);
    expect((await keys.create(NAME)).status).toBe(201);
  });
  afterEach(() => kms[Symbol.asyncDispose]());

  const edit = (sql: string) => testStorage().edit(kms.dataDir, sql);
  const untilChecked = (times: number) =>
    new Promise<void>((resolve) => {
      let checks = 0;
      hooks = {
        onHead: () => {
          if (++checks === times) resolve();
        },
      };
    });
  const release = async () => {
    const answer = await keys.export(NAME);
    expect(answer.status, answer.text).toBe(200);
    return Number(answer.json().audit.seq);
  };

  it('do not forget a record that is written while one runs', async () => {
    let last = 0;
    const { promise: expected, resolve } = Promise.withResolvers<void>();
    hooks = {
      before: release,
      after: async () => {
        last = await release();
        hooks = { onExpected: resolve };
      },
    };
    await expected;
    await edit(`DELETE FROM audit WHERE seq >= ${last}`);
    expect((await keys.export(NAME)).status).toBe(503);
  });

  it('find at the start that a revocation became another record, although the links of the chain hold', async () => {
    const { jti, token } = await kms.issue({ scope: ['kms:export_key'], keys: ['*'] });
    const { status } = await kms.api(`/v1/tokens/${jti}`, { method: 'DELETE', token: await kms.fullToken() });
    expect(status).toBe(204);
    await kms.running.close();
    await edit(`UPDATE audit SET action = 'key.export', detail = '{}' WHERE action = 'token.revoke'`);
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek, decorate });
    expect((await again.internal(`/v1/export/${NAME}`, { token })).status).toBe(503);
    await untilChecked(3);
    expect((await again.internal(`/v1/export/${NAME}`, { token })).status).toBe(503);
  });

  it('do not deny a stored change when too many calls wait to read it', async () => {
    faulty.replaced.updateKey = async (update: KmsStore['updateKey'], change) => {
      const receipt = await update(change);
      faulty.replaced.findKey = () => Promise.reject(new AppError('overloaded'));
      return receipt;
    };
    const answer = await keys.post(NAME, 'disable');
    expect([answer.status, answer.json().code]).toEqual([503, 'storage_unavailable']);
    faulty.replaced.findKey = (find, ...args) => find(...args);
    expect((await keys.export(NAME)).json().code).toBe('key_disabled');
  });

  it('let BunKMS continue after a lost write, although they found no new record since', async () => {
    // After the second one, everything so far was verified.
    await untilChecked(3);
    const of = "NEW.action = 'key.export'";
    const remove = await plant(kms.dataDir, { table: 'audit', event: 'INSERT', when: 'deferred', of });
    expect((await keys.export(NAME)).status).toBe(503);
    await remove();
    await expect.poll(async () => (await keys.export(NAME)).status).toBe(200);
  });
}
