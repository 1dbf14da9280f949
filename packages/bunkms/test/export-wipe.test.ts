import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { connect } from 'node:net';
import { expect, it, vi } from 'vitest';
import { call } from './support/http.ts';
import { newDataDir, newKek, startKms } from './support/kms.ts';
import { startServer } from './support/process.ts';

const made: { readonly body: Buffer; readonly dek: Uint8Array; readonly text: string }[] = [];

vi.mock(import('@bundoc/shared/crypto/exported-key'), async (original) => {
  const actual = await original();
  return {
    ...actual,
    encodeExportedKey: (facts, dek) => {
      const body = actual.encodeExportedKey(facts, dek);
      made.push({ body, dek, text: body.toString() });
      return body;
    },
  };
});

const isWiped = (bytes: Uint8Array) => bytes.every((byte) => byte === 0);

it('the buffers of an exported key are wiped once the answer is written, and when the client has disconnected', async () => {
  await using kms = await startKms();
  const token = await kms.fullToken();
  await kms.api('/v1/keys', { token, body: { name: 'p-dek', type: 'aes-256' } });
  const answer = await kms.internal('/v1/export/p-dek', { token });
  expect(answer.status).toBe(200);
  expect(answer.text).toBe(made[0]?.text);
  await expect.poll(() => made.map(({ body }) => isWiped(body))).toEqual([true]);
  expect(isWiped(made[0]?.dek ?? Buffer.of(1))).toBe(true);

  const socket = connect(Number(new URL(kms.running.internalUrl).port), '127.0.0.1');
  socket.write(`GET /v1/export/p-dek HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\n\r\n`);
  await once(socket, 'connect');
  await expect.poll(() => made).toHaveLength(2);
  socket.resetAndDestroy();
  await expect.poll(() => made.map(({ body }) => isWiped(body))).toEqual([true, true]);
});

it('a service in production does not start the inspector on SIGUSR1', async () => {
  const dataDir = newDataDir();
  try {
    const server = await startServer({ BUNKMS_DATA_DIR: dataDir, BUNKMS_KEK: newKek() });
    {
      await using running = server;
      running.process.kill('SIGUSR1');
      expect((await call(running.apiUrl, '/health')).status).toBe(200);
    }
    expect(server.log).toContain('stopped');
    expect(server.log).not.toContain('Debugger listening');
  } finally {
    rmSync(dataDir, { recursive: true });
  }
});
