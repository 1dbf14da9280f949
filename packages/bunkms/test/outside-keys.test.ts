import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { BunkmsKey } from '../src/outside/bunkms-key.ts';
import { TransitKey } from '../src/outside/transit-key.ts';
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
