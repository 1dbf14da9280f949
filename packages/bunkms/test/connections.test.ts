import { once } from 'node:events';
import { connect } from 'node:net';
import { expect, it } from 'vitest';
import { startKms } from './support/kms.ts';

it('strangers who use all connections of the API listener do not affect the internal listener', async () => {
  const shares = { connectionsMax: 16, connectionsOfAddressMax: 16, isProxy: undefined };
  await using kms = await startKms({ config: { shares } });
  const token = (await kms.issue({ scope: ['kms:metrics'] })).token;
  const port = Number(new URL(kms.running.apiUrl).port);
  using sockets = new DisposableStack();
  const open = async () => {
    const socket = sockets.adopt(connect(port, '127.0.0.1'), (one) => one.destroy());
    socket.on('error', () => undefined).resume();
    await once(socket, 'connect');
    return socket;
  };
  for (let n = 0; n < 80; n++) await open();
  await once(await open(), 'close');
  const { status, text } = await kms.internal('/metrics', { token });
  expect(status).toBe(200);
  expect(text).toMatch(/^bunkms_share_held\{share="connections"\} 80$/m);
  expect(text).toMatch(/^bunkms_share_held\{share="internal_connections"\} 1$/m);
});
