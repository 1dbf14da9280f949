import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLogger } from '@bundoc/shared/logs/logger';
import { expect, it, onTestFinished } from 'vitest';
import { BunkmsKey } from '../src/outside/bunkms-key.ts';
import { OutsideKeys } from '../src/outside/outside-keys.ts';
import { TransitKey } from '../src/outside/transit-key.ts';
import { HostileServer } from './support/hostile-server.ts';
import { startKms } from './support/kms.ts';
import { KeyCalls } from './support/lifecycle.ts';
import { conformsToPort } from './support/outside-providers.ts';
import { TransitServer } from './support/transit-server.ts';

function fileOf(text: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'bunkms-outside-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'token');
  writeFileSync(path, text);
  return path;
}

conformsToPort('OpenBao, as it documents its transit engine', async () => {
  const server = await TransitServer.start();
  for (const name of ['one', 'two']) server.keys.set(name, randomBytes(32));
  const token = server.newToken();
  const tokenFile = fileOf(`${token}\n`);
  const open = (key: string) => () => new TransitKey({ url: server.url, mount: 'transit', key, tokenFile });
  const state = server.tokens.get(token);
  if (state === undefined) throw new Error('the token exists');
  return {
    kind: 'transit',
    open: open('one'),
    openOther: open('two'),
    deny: async () => {
      state.mayUse = false;
    },
    allow: async () => {
      state.mayUse = true;
    },
    endCredential: async () => {
      state.isValid = false;
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
});

conformsToPort('another BunKMS', async () => {
  const kms = await startKms();
  const keys = await KeyCalls.of(kms);
  for (const name of ['one', 'two']) await keys.create(name, { exportable: false });
  const { token, jti } = await kms.issue({ scope: ['kms:encrypt', 'kms:decrypt'], keys: ['one', 'two'] });
  const tokenFile = fileOf(token);
  const open = (key: string) => () => new BunkmsKey({ url: kms.running.apiUrl, key, tokenFile });
  const change = async (action: 'enable' | 'disable') => {
    expect((await keys.post('one', action)).status).toBe(200);
  };
  return {
    kind: 'bunkms',
    open: open('one'),
    openOther: open('two'),
    deny: () => change('disable'),
    allow: () => change('enable'),
    endCredential: async () => {
      await kms.api(`/v1/tokens/${jti}`, { method: 'DELETE', token: await kms.fullToken() });
    },
    [Symbol.asyncDispose]: () => kms[Symbol.asyncDispose](),
  };
});

it('a call of a key whose entry is replaced or removed ends at once, and the next one asks what the entry names now', async () => {
  await using before = await HostileServer.start();
  await using after = await HostileServer.start();
  before.misdeed = () => undefined;
  const secret = randomBytes(32);
  after.misdeed = (response) =>
    response.end(JSON.stringify({ data: { plaintext: secret.toString('base64') } }));
  const file = fileOf('');
  const tokenFile = fileOf('hvs.token');
  const write = (...servers: HostileServer[]) => {
    const entries = servers.map(({ url }) => [
      'held',
      { kind: 'transit', url, key: 'k', token_file: tokenFile },
    ]);
    writeFileSync(file, JSON.stringify({ keys: Object.fromEntries(entries) }));
    outside.check();
  };
  const logger = createLogger({ service: 'bunkms', level: 'silent' });
  await using outside = new OutsideKeys({ file, logger, checkEveryMs: 60_000 });
  write(before);
  const blob = Buffer.from('vault:v1:AAAA');
  const hanging = (await outside.find('held'))?.unwrap(blob).catch((error: unknown) => error);
  await before.asked();
  write(after);
  expect(await hanging).toMatchObject({
    fault: 'unavailable',
    message: expect.stringMatching(/^no answer of/),
  });
  expect(await (await outside.find('held'))?.unwrap(blob)).toEqual(secret);
  write();
  expect(await outside.find('held')).toBeUndefined();
  expect(before.received).toHaveLength(1);
});
