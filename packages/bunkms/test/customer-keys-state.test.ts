import { type KeyDetail, keyDetailSchema } from '@bundoc/shared/contract/keys';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bunkms } from './support/command.ts';
import { Customer } from './support/customer.ts';
import { startKms, type TestKms } from './support/kms.ts';

const NAME = 'a-dek';
let customer: Customer;
let kms: TestKms;
let clock: FakeClock;
let token: string;

beforeEach(async () => {
  customer = await Customer.start();
  clock = new FakeClock();
  kms = await startKms({ clock, config: { outsideKeysFile: customer.file } });
  token = await kms.fullToken();
  await ask('/v1/keys', { body: { name: NAME, type: 'aes-256' } });
});
afterEach(async () => {
  await kms[Symbol.asyncDispose]();
  await customer[Symbol.asyncDispose]();
});

const ask = (path: string, options: object = {}) => kms.api(path, { token, ...options });
const read = async (): Promise<KeyDetail> =>
  keyDetailSchema.strict().parse((await ask(`/v1/keys/${NAME}`)).json());
const attach = (key: string) => ask(`/v1/keys/${NAME}/outside`, { method: 'PUT', body: { key } });
const release = (version = 0) =>
  kms.internal(`/v1/export/${NAME}${version === 0 ? '' : `?version=${version}`}`, { token });
/** What each version needs besides the KEK. */
const needsOf = ({ versions }: KeyDetail) => versions.map(({ outside }) => outside ?? 'none');
/** Lets a minute pass, and says when it is. */
const later = () => {
  clock.advance(60_000);
  return new Date(clock.now()).toISOString();
};

describe('what is shown of a key', () => {
  it('says nothing of outside keys while it has had none', async () => {
    await release();
    const detail = await read();
    expect(detail.outside_state).toBeUndefined();
    expect(needsOf(detail)).toEqual(['none']);
  });

  it('says of each version which outside key it needs, and which are not protected as new ones are', async () => {
    await attach('acme');
    const attached = await read();
    expect(needsOf(attached)).toEqual(['none', 'acme']);
    expect(attached.outside_state).toMatchObject({
      other_versions: [1],
      kek_ids: [expect.stringMatching(/^[0-9a-f]{16}$/)],
    });
    await attach('other');
    const moved = await read();
    expect(needsOf(moved)).toEqual(['none', 'acme', 'other']);
    expect(moved.outside_state).toMatchObject({ other_versions: [1, 2] });
    await ask(`/v1/keys/${NAME}/outside/rewrap`, { method: 'POST' });
    const rewrapped = await read();
    expect(needsOf(rewrapped)).toEqual(['other', 'other', 'other']);
    expect(rewrapped.outside_state).toMatchObject({ other_versions: [] });
    await ask(`/v1/keys/${NAME}/outside`, { method: 'DELETE' });
    const detached = await read();
    expect(detached).not.toHaveProperty('outside');
    expect(detached.outside_state).toMatchObject({ other_versions: [1, 2, 3] });
    await ask(`/v1/keys/${NAME}/outside/rewrap`, { method: 'POST' });
    expect((await read()).outside_state).toBeUndefined();
  });

  it('has the moments of the last success and of the last error, whichever process had them', async () => {
    const attachedAt = later();
    await attach('acme');
    expect((await read()).outside_state).toMatchObject({ last_success_at: attachedAt });
    const usedAt = later();
    await release();
    later();
    // An older version needs nobody.
    expect((await release(1)).status).toBe(200);
    const deniedAt = later();
    customer.attitude = 'denying';
    await release();
    expect((await read()).outside_state).toMatchObject({
      last_success_at: usedAt,
      last_error: { code: 'outside_key_denied', at: deniedAt },
    });
    const awayAt = later();
    customer.attitude = 'away';
    await release();
    expect((await read()).outside_state?.last_error).toEqual({ code: 'outside_key_unavailable', at: awayAt });
    const backAt = later();
    customer.attitude = 'present';
    await ask(`/v1/encrypt/${NAME}`, { body: { plaintext_b64: 'aGVsbG8=' } });
    expect((await read()).outside_state).toMatchObject({
      last_success_at: backAt,
      last_error: { at: awayAt },
    });
    customer.attitude = 'away';
    const text = JSON.stringify(await read());
    expect(text).not.toContain(customer.service.url);
  });

  it('finds the last success behind more refusals than it searches for errors', async () => {
    const usedAt = later();
    await attach('acme');
    later();
    const refused = {
      time: new Date(clock.now()).toISOString(),
      severity: 'CRITICAL',
      action: 'key.export',
      outcome: 'refused',
      code: 'outside_key_denied',
      key: NAME,
    } as const;
    await release();
    const releasedAt = new Date(clock.now()).toISOString();
    await kms.store.appendAudit(Array.from({ length: 500 }, () => refused));
    const { outside_state: state } = await read();
    expect(state?.last_success_at).toBe(releasedAt);
    expect(state?.last_success_at).not.toBe(usedAt);
  });
});

it('`bunkms key show` says the same, without asking the customer', async () => {
  await attach('acme');
  customer.attitude = 'denying';
  await release();
  customer.takeCalls();
  const environment = {
    BUNKMS_DATA_DIR: kms.dataDir,
    BUNKMS_KEK: kms.kek,
    BUNKMS_OUTSIDE_KEYS_FILE: customer.file,
  };
  const shown = await bunkms(environment, 'key', 'show', NAME);
  const { outside_state: state } = await read();
  expect(shown).toMatchObject({ code: 0, stderr: '' });
  const lines = shown.stdout.split('\n');
  expect(lines).toEqual(
    expect.arrayContaining([
      'outside: acme, leases of 900 s',
      `outside last success: ${state?.last_success_at}`,
      `outside last error: outside_key_denied at ${state?.last_error?.at}`,
      'outside other versions: 1',
      `outside KEKs that open older copies: ${state?.kek_ids.join(', ')}`,
      expect.stringMatching(/^version {2}1 {2}available .*opens with the KEK alone$/),
      expect.stringMatching(/^version {2}2 {2}available .*needs the outside key acme as well$/),
    ]),
  );
  const json = await bunkms(environment, 'key', 'show', NAME, '--json');
  expect(keyDetailSchema.strict().parse(JSON.parse(json.stdout)).outside_state).toEqual(state);
  const { stdout } = await bunkms(environment, 'outside', 'status');
  expect(stdout).toContain(
    `  last error: outside_key_denied at ${state?.last_error?.at}; last success: ${state?.last_success_at}\n`,
  );
  expect(customer.takeCalls()).toEqual([]);
});

it.each([
  ['acme', '', 'BUNKMS_OUTSIDE_KEYS_FILE is not set: there are no outside keys'],
  ['acmee', 'file', 'no entry of BUNKMS_OUTSIDE_KEYS_FILE has the name acmee (did you mean acme?)'],
  ['acme', 'file', 'the entry acme does not allow the key z-dek: add a glob for it to "keys" of the entry'],
])('`bunkms outside attach` to %s of %s says why it is refused', async (entry, file, fault) => {
  customer.write({ acme: { keys: ['a-*'] } });
  await ask('/v1/keys', { body: { name: 'z-dek', type: 'aes-256' } });
  const environment = {
    BUNKMS_DATA_DIR: kms.dataDir,
    BUNKMS_KEK: kms.kek,
    BUNKMS_OUTSIDE_KEYS_FILE: file === '' ? '' : customer.file,
  };
  const refused = await bunkms(environment, 'outside', 'attach', 'z-dek', entry);
  expect(refused).toMatchObject({ code: 5, stderr: `bunkms: ${fault}\n` });
});
