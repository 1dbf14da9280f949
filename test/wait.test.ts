import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { runBunkms } from '@bundoc/bunkms/cli/program';
import { bundocAccess } from '@bundoc/shared/cli/bundoc-access';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { freePort } from '@bundoc/shared/testing/free-port';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundocCommand } from './support/bundoc-command.ts';
import { Installation } from './support/installation.ts';

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.start({ isOnFiles: true });
});
afterAll(() => installation[Symbol.asyncDispose]());

const bundoc = (environment: Record<string, string>, ...args: string[]) =>
  bundocCommand(environment, ['wait', ...args]);
const bunkms = (...args: string[]) => capturedRun(() => runBunkms(['wait', ...args], { NODE_ENV: 'test' }));

/** A process that does nothing until its standard input ends. */
function idleProcess(): ChildProcess {
  return spawn(process.execPath, ['-e', 'process.stdin.resume()'], { stdio: ['pipe', 'ignore', 'ignore'] });
}
/** A service that answers `/health`, and `/ready` with these bodies, one after another. */
async function serviceWith(...bodies: readonly object[]) {
  const left = [...bodies];
  const answered = Promise.withResolvers<void>();
  const server = createServer(({ url }, response) => {
    if (url === '/ready') response.once('close', answered.resolve);
    const body = url === '/health' ? { status: 'ok' } : left.length > 1 ? left.shift() : left[0];
    response.statusCode = url === '/health' || Reflect.get(body ?? {}, 'status') === 'ready' ? 200 : 503;
    response.end(JSON.stringify(body));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  return { url, answered: answered.promise, [Symbol.dispose]: () => server.close() };
}

describe('the command wait', () => {
  it('returns when the service is ready, also without a token, where the variables of the service say', async () => {
    const { hostname, port } = new URL(installation.url);
    const environment = { BUNDOC_HOST: hostname, BUNDOC_PORT: port };
    expect(await bundoc(environment)).toMatchObject({ code: 0, stdout: 'Bundoc is ready\n' });
    const json = await bundoc(environment, '--json');
    expect(JSON.parse(json.stdout)).toEqual({ status: 'ready', waited_seconds: expect.any(Number) });
    const ofKms = await bunkms('--url', installation.kms.apiUrl);
    expect(ofKms).toMatchObject({ code: 0, stdout: 'BunKMS is ready\n' });
  });

  it('prints each reason of /ready once while it waits', async () => {
    const notReady = (reason: string) => ({ status: 'not ready', reason, kms: 'up', kms_events: 'live' });
    using service = await serviceWith(
      notReady('kms_unavailable'),
      notReady('kms_unavailable'),
      notReady('storage_superseded'),
      { status: 'ready', kms: 'up', kms_events: 'live' },
    );
    const { code, stderr } = await bundoc({}, '--url', service.url);
    expect(code).toBe(0);
    expect(stderr.trim().split('\n')).toEqual([
      expect.stringContaining('kms_unavailable. To do: start BunKMS'),
      expect.stringContaining('storage_superseded. To do: stop one of the two copies'),
    ]);
  });

  it('fails with the last reason when the time is over', async () => {
    const port = await freePort();
    const { code, stderr } = await bundoc({ BUNDOC_PORT: String(port) }, '--within', '1');
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`not within 1 s: nothing listens at 127.0.0.1:${port}`));
    expect(stderr).toContain(
      `asked http://127.0.0.1:${port} (BUNDOC_HOST and BUNDOC_PORT); "bundoc doctor" checks more`,
    );
  });

  it('says of the default URL that it is the default', () => {
    expect(bundocAccess({}, {}).source).toBe('the default: set BUNDOC_URL or --url');
    expect(bundocAccess({ BUNDOC_HOST: 'db' }, {}).source).toBe('BUNDOC_HOST and BUNDOC_PORT');
  });

  it('names what the service answered last, when it refuses connections at the end', async () => {
    const sealed = { status: 'sealed', checks: { unsealed: false, store: false, audit: false } };
    const service = await serviceWith(sealed);
    const waiting = bunkms('--url', service.url, '--within', '2');
    await service.answered;
    service[Symbol.dispose]();
    const { code, stderr } = await waiting;
    expect(code).toBe(1);
    expect(stderr).toMatch(/not within 2 s: nothing listens at .*; before that: BunKMS is sealed/);
  });

  it('names a service that answers in the place of the one that is asked', async () => {
    const [url, { apiUrl, internalUrl }] = [installation.url, installation.kms];
    for (const [waited, answering] of [
      [bundoc({}, '--url', apiUrl, '--within', '1'), `the API listener of BunKMS answers at ${apiUrl}`],
      [bundoc({}, '--url', internalUrl, '--within', '1'), `the internal listener of BunKMS answers`],
      [bunkms('--url', url, '--within', '1'), `Bundoc answers at ${url}`],
    ] as const)
      expect(await waited).toMatchObject({ code: 1, stderr: expect.stringContaining(answering) });
  });

  it('fails in time when something accepts connections and does not answer', async () => {
    const silent = createTcpServer(() => undefined).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const startMs = performance.now();
    const { port } = silent.address() as AddressInfo;
    const { code } = await bundoc({ BUNDOC_PORT: String(port) }, '--within', '1');
    silent.close();
    expect([code, performance.now() - startMs < 3_000]).toEqual([1, true]);
  });

  it('fails when the process that was started has ended, also when another one answers', async () => {
    const child = idleProcess();
    child.stdin!.end();
    await once(child, 'exit');
    const { code, stderr } = await bundoc({}, '--url', installation.url, '--pid', String(child.pid));
    expect(code).toBe(1);
    expect(stderr).toMatch(/process \d+ has ended: its log says why; what answers is another process/);
  });

  it.runIf(process.platform === 'linux')(
    'does not take an older service on the port for a process that does not listen yet',
    async () => {
      const child = idleProcess();
      const waiting = (seconds: string) =>
        bundoc({}, '--url', installation.url, '--pid', String(child.pid), '--within', seconds);
      const { code, stderr } = await waiting('1');
      expect([code, stderr]).toEqual([1, expect.stringMatching(/another process answers/)]);
      // What a start passes through needs nobody.
      expect(stderr).not.toContain('waiting for');
      const { stderr: longer } = await waiting('3');
      child.stdin!.end();
      expect(longer).toMatch(/waiting for .*: another process answers/);
      const own = await bundoc({}, '--url', installation.url, '--pid', String(process.pid));
      expect(own.code).toBe(0);
    },
  );

  it.runIf(process.platform === 'linux')(
    'does not take an older service on the port for a process that listens on another port',
    async () => {
      const child = spawn(
        process.execPath,
        ['-e', "require('net').createServer().listen(0, () => console.log(1))"],
        {
          stdio: ['ignore', 'pipe', 'ignore'],
        },
      );
      await once(child.stdout, 'data');
      const { hostname, port } = new URL(installation.url);
      const environment = { BUNDOC_HOST: hostname, BUNDOC_PORT: port };
      const { code, stderr } = await bundoc(environment, '--pid', String(child.pid), '--within', '1');
      child.kill();
      expect([code, stderr]).toEqual([1, expect.stringMatching(/another process answers/)]);
      expect((await bundoc(environment, '--pid', String(process.pid))).code).toBe(0);
    },
  );

  it('refuses options that are not understood', async () => {
    for (const args of [
      ['--pid', '0'],
      ['--for', 'ever'],
      ['--within', 'long'],
      ['--url', '127.0.0.1:8080'],
    ])
      expect((await bundoc({}, ...args)).code).toBe(2);
    const port = await bundoc({ BUNDOC_PORT: 'abc' });
    expect([port.code, port.stderr]).toEqual([2, expect.stringContaining('give a port from 1 to 65535')]);
  });
});
