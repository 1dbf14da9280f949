import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { expect, it, vi } from 'vitest';
import type { Claims } from '../src/contract/tokens.ts';
import { createGuard } from '../src/http/guard.ts';
import { createHttpShares } from '../src/http/http-shares.ts';
import { start } from './started-server.ts';

const REQUEST = 'GET /items/1 HTTP/1.1\r\nHost: x\r\n\r\n';

it('a connection beyond the limit of its address is not read, and closes after a second', async () => {
  const shares = createHttpShares({ connectionsOfAddressMax: 1 });
  // 64 more are for this machine.
  await using server = await start({ shares });
  const accept = vi.spyOn(shares.connections, 'accept');
  const clients = Array.from({ length: 66 }, () => connect(server.port, '127.0.0.1'));
  await expect.poll(() => accept.mock.calls.length).toBe(clients.length);
  expect(accept.mock.results.map(({ value }) => value).indexOf(false)).toBe(clients.length - 1);
  const [refused] = accept.mock.lastCall ?? [];
  const client = clients.find(({ localPort }) => localPort === refused?.remotePort);
  client?.write(REQUEST + 'x'.repeat(200_000));
  // Another one is answered: by then, what arrived was read.
  clients[0]?.write(REQUEST);
  const [answer] = await once(clients[0] as Socket, 'data');
  expect(`${answer}`).toMatch(/^HTTP\/1\.1 200 /);
  expect([refused?.bytesRead, refused?.readableLength, refused?.destroyed]).toEqual([0, 0, false]);
  client?.on('error', () => undefined);
  await new Promise((resolve) => client?.once('close', resolve));
  for (const one of clients) one.destroy();
});

it('silent connections make room for others, and one whose request was authorized stays open', async () => {
  const guard = createGuard(
    () => ({ jti: 'a', projects: [] }) as unknown as Claims,
    () => undefined,
  );
  await using server = await start({ shares: createHttpShares({ connectionsMax: 8 }) }, (app) =>
    app.get('/guarded', { onRequest: guard }, async () => ({})),
  );
  const open = async () => {
    const client = connect(server.port, '127.0.0.1');
    await once(client, 'connect');
    return client;
  };
  const ask = async (client: Socket, path: string) => {
    client.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
    return `${(await once(client, 'data'))[0]}`.slice(0, 12);
  };
  const passed = await open();
  expect(await ask(passed, '/guarded')).toBe('HTTP/1.1 200');
  const silent: Socket[] = [];
  for (let n = 0; n < 90; n++) silent.push(await open());
  const late = await open();
  expect(await ask(late, '/items/1')).toBe('HTTP/1.1 200');
  expect(await ask(passed, '/guarded')).toBe('HTTP/1.1 200');
  for (const client of [passed, late, ...silent]) client.destroy();
});

it('many connections at once are all answered, each with all that it sent', async () => {
  await using server = await start();
  const COUNT = 200;
  const answers = await Promise.all(
    Array.from({ length: COUNT }, async (_, n) => {
      const client = connect(server.port, '127.0.0.1');
      const body = 'x'.repeat(4 * n);
      client.write(
        `POST /items HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ${body.length + 2}\r\n\r\n"${body}"`,
      );
      let text = '';
      client.on('data', (bytes) => {
        text += bytes;
      });
      await once(client, 'close');
      return /\{.*\}$/.exec(text)?.[0];
    }),
  );
  expect(answers).toEqual(Array.from({ length: COUNT }, (_, n) => JSON.stringify({ bytes: 4 * n + 2 })));
});
