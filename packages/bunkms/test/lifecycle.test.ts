import { destroyReceiptSchema, keyDetailSchema, keyPageSchema } from '@bundoc/shared/contract/keys';
import type { ProblemCode } from '@bundoc/shared/contract/problem';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parseKekRing } from '../src/vault/kek-provider.ts';
import { Vault } from '../src/vault/vault.ts';
import type { Answer } from './support/http.ts';
import { newKek, startKms, type TestKms } from './support/kms.ts';
import { infoIn, KeyCalls, STATES, type State } from './support/lifecycle.ts';
import { testStorage } from './support/storage.ts';

const DAY_MS = 86_400_000;
const NAME = 'a-dek';

/** The answer of an operation in a state, and the state after it. */
type Outcome = readonly [status: number, code: ProblemCode | undefined, after: State];

const refused = (status: number, code: ProblemCode) => (state: State) => [status, code, state] as const;
const gone = refused(410, 'key_destroyed');
const pending = refused(409, 'key_pending_deletion');
const ok = (after: State, status = 200): Outcome => [status, undefined, after];

/** An operation that uses a key without changing it. */
const USE: Record<State, Outcome> = {
  enabled: ok('enabled'),
  disabled: refused(409, 'key_disabled')('disabled'),
  pending_deletion: pending('pending_deletion'),
  destroyed: gone('destroyed'),
};

/** Every operation with its call and its outcome in each state. */
const MATRIX: Record<
  string,
  {
    call: (keys: KeyCalls, name: string, ciphertexts: readonly [string, string]) => Promise<Answer>;
    in: Record<State, Outcome>;
  }
> = {
  create: {
    call: (keys, name) => keys.create(name),
    in: {
      enabled: refused(409, 'key_exists')('enabled'),
      disabled: refused(409, 'key_exists')('disabled'),
      pending_deletion: refused(409, 'key_exists')('pending_deletion'),
      destroyed: gone('destroyed'),
    },
  },
  read: {
    call: (keys, name) => keys.read(name),
    in: {
      enabled: ok('enabled'),
      disabled: ok('disabled'),
      pending_deletion: ok('pending_deletion'),
      destroyed: gone('destroyed'),
    },
  },
  export: {
    call: (keys, name) => keys.export(name),
    in: USE,
  },
  'export of an older version': {
    call: (keys, name) => keys.export(name, 1),
    in: USE,
  },
  encrypt: {
    call: (keys, name) => keys.crypto('encrypt', name, { plaintext_b64: '' }),
    in: USE,
  },
  'make a data key': {
    call: (keys, name) => keys.crypto('data-key', name, {}),
    in: USE,
  },
  decrypt: {
    call: (keys, name, [, current]) => keys.crypto('decrypt', name, { ciphertext_b64: current }),
    in: USE,
  },
  'decrypt of an older version': {
    call: (keys, name, [older]) => keys.crypto('decrypt', name, { ciphertext_b64: older }),
    in: USE,
  },
  rewrap: {
    call: (keys, name, [older]) => keys.crypto('rewrap', name, { ciphertext_b64: older }),
    in: USE,
  },
  'decrypt of a batch': {
    call: (keys, name, [older, current]) =>
      keys.crypto('decrypt', name, { items: [{ ciphertext_b64: older }, { ciphertext_b64: current }] }),
    in: USE,
  },
  rotate: {
    call: (keys, name) => keys.post(name, 'rotate'),
    in: {
      enabled: ok('enabled'),
      disabled: refused(409, 'key_disabled')('disabled'),
      pending_deletion: pending('pending_deletion'),
      destroyed: gone('destroyed'),
    },
  },
  enable: {
    call: (keys, name) => keys.post(name, 'enable'),
    in: {
      enabled: ok('enabled'),
      disabled: ok('enabled'),
      pending_deletion: pending('pending_deletion'),
      destroyed: gone('destroyed'),
    },
  },
  disable: {
    call: (keys, name) => keys.post(name, 'disable'),
    in: {
      enabled: ok('disabled'),
      disabled: ok('disabled'),
      pending_deletion: pending('pending_deletion'),
      destroyed: gone('destroyed'),
    },
  },
  restore: {
    call: (keys, name) => keys.post(name, 'restore'),
    in: {
      enabled: refused(409, 'key_not_pending_deletion')('enabled'),
      disabled: refused(409, 'key_not_pending_deletion')('disabled'),
      pending_deletion: ok('disabled'),
      destroyed: gone('destroyed'),
    },
  },
  update: {
    call: (keys, name) => keys.patch(name, { rotate_after_days: 90 }),
    in: {
      enabled: ok('enabled'),
      disabled: ok('disabled'),
      pending_deletion: pending('pending_deletion'),
      destroyed: gone('destroyed'),
    },
  },
  'schedule deletion': {
    call: (keys, name) => keys.delete(name),
    in: {
      enabled: ok('pending_deletion', 202),
      disabled: ok('pending_deletion', 202),
      pending_deletion: ok('pending_deletion', 202),
      destroyed: gone('destroyed'),
    },
  },
  shred: {
    call: (keys, name) => keys.shred(name),
    in: {
      enabled: ok('destroyed'),
      disabled: ok('destroyed'),
      pending_deletion: ok('destroyed'),
      destroyed: gone('destroyed'),
    },
  },
  'destroy an older version': {
    call: (keys, name) => keys.destroyVersion(name, 1),
    in: {
      enabled: ok('enabled'),
      disabled: ok('disabled'),
      pending_deletion: pending('pending_deletion'),
      destroyed: gone('destroyed'),
    },
  },
  'destroy the current version': {
    call: (keys, name) => keys.destroyVersion(name, 2),
    in: {
      enabled: refused(409, 'key_version_current')('enabled'),
      disabled: refused(409, 'key_version_current')('disabled'),
      pending_deletion: pending('pending_deletion'),
      destroyed: gone('destroyed'),
    },
  },
};

describe('the state of a key', () => {
  let kms: TestKms;
  let keys: KeyCalls;
  beforeAll(async () => {
    kms = await startKms();
    keys = await KeyCalls.of(kms);
  });
  afterAll(() => kms[Symbol.asyncDispose]());

  const cases = Object.entries(MATRIX).flatMap(([operation, { call, in: outcomes }]) =>
    STATES.map((state) => ({ operation, state, call, outcome: outcomes[state] })),
  );
  let made = 0;
  it.each(cases)('$state determines the outcome of: $operation', async ({ state, call, outcome }) => {
    const name = `k${made++}-dek`;
    const ciphertexts = await keys.make(name, state);
    const before = (await kms.store.findKey(name, 'all'))?.record;
    const [status, code, after] = outcome;
    const answer = await call(keys, name, ciphertexts);
    expect([answer.status, answer.json().code]).toEqual([status, code]);
    const record = (await kms.store.findKey(name, 'all'))?.record;
    expect(record?.state).toBe(after);
    // A refused operation changed nothing. A change is one revision and one record.
    const changes = (await kms.records()).filter(
      ({ key, detail }) => key === name && detail?.['revision'] !== undefined,
    );
    expect(changes).toHaveLength(record!.revision);
    if (status >= 400) expect(record).toEqual(before);
  });

  it('is changed in a chain that verifies', async () => {
    expect(await kms.verify()).toMatchObject({ intact: true });
  });
});

describe('the deletion of a key', () => {
  let kms: TestKms;
  let keys: KeyCalls;
  let clock: FakeClock;
  beforeEach(async () => {
    clock = new FakeClock();
    kms = await startKms({ clock });
    keys = await KeyCalls.of(kms);
    await keys.make(NAME, 'enabled');
  });
  afterEach(() => kms[Symbol.asyncDispose]());

  const changeRecords = async () =>
    (await kms.records()).filter(({ detail }) => detail?.['revision'] !== undefined);

  it.each([
    ['', 7],
    ['?pending_days=7', 7],
    ['?pending_days=30', 30],
  ])(
    'requested with "%s" is scheduled in %i days, and a repeated request does not move it',
    async (query, days) => {
      const answer = await keys.delete(NAME, query);
      expect(answer.status).toBe(202);
      const deletionAt = new Date(clock.now() + days * DAY_MS).toISOString();
      expect(infoIn(answer)).toMatchObject({ state: 'pending_deletion', deletion_at: deletionAt });
      clock.advance(DAY_MS);
      expect(infoIn(await keys.delete(NAME, '?pending_days=30'))).toEqual(infoIn(answer));
      expect((await changeRecords()).at(-1)).toMatchObject({
        action: 'key.schedule_deletion',
        detail: { deletion_at: deletionAt },
      });
    },
  );

  it('the deletion of a key with a different time, or without the right confirmation, is refused', async () => {
    for (const query of [
      '?pending_days=1',
      '?pending_days=6',
      '?pending_days=31',
      '?pending_days=-1',
      '?pending_days=07',
      '?pending_days=7.5',
      '?pending_days=0',
      '?pending_days=0&confirm=b-dek',
      '?confirm=a-dek',
      '?days=7',
    ]) {
      const answer = await keys.delete(NAME, query);
      expect([query, answer.json()]).toMatchObject([query, { status: 400, code: 'invalid_request' }]);
      expect((await keys.read(NAME)).json()).toMatchObject({ state: 'enabled' });
    }
  });

  it('the deletion of a key that is canceled leaves the key disabled, and the same after it is enabled', async () => {
    await keys.delete(NAME);
    expect(infoIn(await keys.post(NAME, 'restore'))).toMatchObject({ state: 'disabled' });
    expect((await keys.export(NAME)).json()).toMatchObject({ code: 'key_disabled' });
    await keys.post(NAME, 'enable');
    expect((await keys.export(NAME)).json()).toMatchObject({ version: 2 });
  });

  it('the deletion of a key at once returns a receipt that names the record and every KEK that wrapped a copy', async () => {
    await kms.running.close();
    const further = newKek();
    await using ring = await startKms({ dataDir: kms.dataDir, kek: `${further}\n${kms.kek}`, clock });
    const ringKeys = await KeyCalls.of(ring);
    expect((await ring.api('/v1/kek/rotate', { method: 'POST', token: await ring.fullToken() })).status).toBe(
      202,
    );
    await ringKeys.post(NAME, 'rotate');
    const kekIds = [kms.kek, further].map((kek) => new Vault(parseKekRing('test', kek)).currentKekId);
    const receipt = destroyReceiptSchema.strict().parse((await ringKeys.shred(NAME)).json());
    expect(receipt).toMatchObject({ name: NAME, state: 'destroyed', kek_ids: kekIds });
    expect((await ring.records())[receipt.audit.seq - 1]).toMatchObject({
      hash: receipt.audit.hash,
      action: 'key.destroy',
      severity: 'CRITICAL',
      key: NAME,
      detail: { key_id: receipt.id, kek_ids: kekIds.join(',') },
    });
  });

  it('blocks the name permanently, even if somebody removes the row from the database', async () => {
    await keys.shred(NAME);
    await kms.running.close();
    await using again = await startKms({ dataDir: kms.dataDir, kek: kms.kek, clock });
    const later = await KeyCalls.of(again);
    expect((await later.create(NAME)).json()).toMatchObject({ status: 410, code: 'key_destroyed' });
    expect((await later.export(NAME, 1)).json()).toMatchObject({ status: 410, code: 'key_destroyed' });
    expect(keyPageSchema.parse((await later.list()).json()).keys).toMatchObject([
      { name: NAME, state: 'destroyed' },
    ]);
    await testStorage().edit(again.dataDir, 'DELETE FROM key_versions; DELETE FROM keys;');
    expect((await later.create(NAME)).json()).toMatchObject({ code: 'key_exists' });
    expect((await later.export(NAME)).json()).toMatchObject({ code: 'key_damaged' });
  });

  it('leaves no wrapped bytes in the files of the store', async () => {
    await keys.create('b-dek');
    const wrapped = async (name: string, version: number) =>
      Buffer.from((await keys.export(name, version)).json().wrapped_b64, 'base64');
    const bytes = [await wrapped(NAME, 1), await wrapped(NAME, 2)];
    const kept = await wrapped('b-dek', 1);
    const found = (sought: Buffer) => testStorage().holds(kms.dataDir, sought);
    for (const one of [...bytes, kept]) expect(await found(one)).toBe(true);
    await keys.shred(NAME);
    for (const one of bytes) expect(await found(one)).toBe(false);
    // Only ciphertext and tag, without the header.
    for (const one of bytes) expect(await found(one.subarray(21))).toBe(false);
    expect(await found(kept)).toBe(true);
  });

  it('the deletion of one version of a key is permanent and does not affect the others', async () => {
    const bytes = Buffer.from((await keys.export(NAME, 1)).json().wrapped_b64, 'base64');
    const second = (await keys.export(NAME)).json();
    const receipt = destroyReceiptSchema.strict().parse((await keys.destroyVersion(NAME, 1)).json());
    expect(receipt).toMatchObject({ name: NAME, version: 1, state: 'enabled' });
    expect((await changeRecords()).at(-1)).toMatchObject({
      seq: receipt.audit.seq,
      action: 'key.destroy_version',
      version: 1,
    });
    expect((await keys.export(NAME, 1)).json()).toMatchObject({ status: 410, code: 'key_version_destroyed' });
    expect((await keys.destroyVersion(NAME, 1)).json()).toMatchObject({ code: 'key_version_destroyed' });
    expect((await keys.destroyVersion(NAME, 3)).json()).toMatchObject({ code: 'key_not_found' });
    expect((await keys.export(NAME)).json().key_material_b64).toBe(second.key_material_b64);
    expect(keyDetailSchema.strict().parse((await keys.read(NAME)).json()).versions).toMatchObject([
      { version: 1, state: 'destroyed', destroyed_at: receipt.destroyed_at },
      { version: 2, state: 'available' },
    ]);
    expect(await testStorage().holds(kms.dataDir, bytes)).toBe(false);
    expect((await keys.post(NAME, 'rotate')).json()).toMatchObject({ version: 3 });
  });

  it('the deletion of one version of a key needs the name of the key as confirmation', async () => {
    for (const query of ['', '?confirm=b-dek', '?confirm='])
      expect((await keys.delete(`${NAME}/versions/1`, query)).json()).toMatchObject({
        code: 'invalid_request',
      });
    expect((await keys.export(NAME, 1)).status).toBe(200);
  });
});

describe('the export of a key', () => {
  it('the export of a key that is not exportable is refused to all callers, permanently', async () => {
    await using kms = await startKms();
    const keys = await KeyCalls.of(kms);
    expect(infoIn(await keys.create('kept-dek', { exportable: false }))).toMatchObject({ exportable: false });
    expect((await keys.export('kept-dek')).json()).toMatchObject({ status: 403, code: 'key_not_exportable' });
    expect((await keys.patch('kept-dek', { exportable: true })).json()).toMatchObject({
      code: 'key_not_exportable',
    });
    expect(infoIn(await keys.create(NAME))).toMatchObject({ exportable: true });
    expect((await keys.export(NAME)).status).toBe(200);
    expect(infoIn(await keys.patch(NAME, { exportable: true }))).toMatchObject({ revision: 1 });
    expect(infoIn(await keys.patch(NAME, { exportable: false }))).toMatchObject({
      exportable: false,
      revision: 2,
    });
    expect((await keys.export(NAME, 1)).json()).toMatchObject({ code: 'key_not_exportable' });
    expect((await keys.patch(NAME, { exportable: true, rotate_after_days: 9 })).json()).toMatchObject({
      status: 403,
    });
    const refusals = (await kms.records()).filter(({ code }) => code === 'key_not_exportable');
    expect(refusals).toMatchObject([{ severity: 'CRITICAL', outcome: 'refused' }, { outcome: 'refused' }]);
  });

  it('is not affected by an invalid change', async () => {
    await using kms = await startKms();
    const keys = await KeyCalls.of(kms);
    await keys.create(NAME);
    for (const body of [
      {},
      { exportable: 'yes' },
      { rotate_after_days: 0 },
      { rotate_after_days: 3651 },
      { rotate_after_days: 1.5 },
      { state: 'enabled' },
    ])
      expect((await keys.patch(NAME, body)).json()).toMatchObject({ status: 400, code: 'invalid_request' });
  });
});
