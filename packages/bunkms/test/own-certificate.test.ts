import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { expect, it } from 'vitest';
import { bunkms } from './support/command.ts';
import { environment, useCommandLine } from './support/command-line.ts';
import { TestPki } from './support/pki.ts';

useCommandLine();

it('commands on the machine of BunKMS trust the certificate of its own variables, and no other', async () => {
  using pki = await TestPki.make();
  const pair = await pki.issue({ names: ['127.0.0.1'] });
  const server = createServer(pair, (request, response) => {
    const body = request.url === '/health' ? { status: 'ok' } : { status: 'ready', service: 'bunkms' };
    response.end(JSON.stringify(body));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  try {
    const { port } = server.address() as AddressInfo;
    const { cert, key, ca } = pki.write('own', pair);
    const other = pki.write('other', await pki.issue({ names: ['127.0.0.1'] }));
    const waits = (files: typeof other, ...options: string[]) =>
      bunkms(
        {
          ...environment,
          BUNKMS_PORT: String(port),
          BUNKMS_TLS_CERT_FILE: String(files.cert?.path),
          BUNKMS_TLS_KEY_FILE: String(files.key?.path),
        },
        ...['wait', '--within', '1', ...options],
      );
    expect(await waits({ cert, key })).toMatchObject({ code: 0, stdout: 'BunKMS is ready\n' });
    const unknown = { code: 1, stderr: expect.stringContaining('the authority of the certificate of') };
    expect(await waits(other)).toMatchObject(unknown);
    // What answers at another URL has another certificate.
    const url = ['--url', `https://127.0.0.1:${port}`];
    expect(await waits({ cert, key }, ...url)).toMatchObject(unknown);
    expect(await waits({ cert, key }, ...url, '--ca-file', String(ca?.path))).toMatchObject({ code: 0 });
  } finally {
    server.close();
  }
});
