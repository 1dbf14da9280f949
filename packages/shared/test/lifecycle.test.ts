import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const SCRIPT = fileURLToPath(new URL('./lifecycle-service.ts', import.meta.url));

interface Run {
  readonly child: ChildProcess;
  /** Resolves once it has printed `started`. */
  readonly started: Promise<void>;
  readonly ended: Promise<{ code: number | null; signal: string | null; log: string; said: string }>;
}

function run(behaviour: string): Run {
  const child = fork(SCRIPT, [behaviour], { silent: true, execArgv: [] });
  let log = '';
  let said = '';
  const { promise: started, resolve } = Promise.withResolvers<void>();
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said += text;
    if (said.includes('started\n')) resolve();
  });
  // Not the event `close`: a child whose channel was ended from here never has it.
  const ended = Promise.all([
    once(child, 'exit') as Promise<[number | null, string | null]>,
    ...[child.stdout, child.stderr].map((stream) => stream && once(stream, 'close')),
  ]).then(([[code, signal]]) => ({ code, signal, log, said }));
  return { child, started, ended };
}

describe('runService', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)(
    'ends with 0 after %s, once everything is closed',
    async (signal) => {
      const { child, started, ended } = run('plain');
      await started;
      child.kill(signal);
      const { code, said, log } = await ended;
      expect({ code, said }).toEqual({ code: 0, said: 'started\nclose 1\nclosed\n' });
      expect(log).toContain(`"signal":"${signal}"`);
      expect(log).toContain('"msg":"stopped"');
    },
  );

  it('stops in order when its supervisor goes away', async () => {
    const { child, started, ended } = run('plain');
    await started;
    child.disconnect();
    expect(await ended).toMatchObject({ code: 0, said: 'started\nclose 1\nclosed\n' });
  });

  it('stops when its supervisor went away while it was starting', async () => {
    expect(await run('orphaned-start').ended).toMatchObject({
      code: 0,
      said: expect.stringContaining('closed'),
    });
  });

  it('closes once, and waits for it, when two ways to stop come together', async () => {
    const { child, started, ended } = run('stopped-twice');
    await started;
    child.kill('SIGTERM');
    expect(await ended).toMatchObject({ code: 0, said: 'started\nclose 1\nclosed\n' });
  });

  it.each(['config-error', 'start-error'])(
    'ends with 1 after a failed start (%s), although a listener is left',
    async (behaviour) => {
      const { code, log } = await run(behaviour).ended;
      expect(code).toBe(1);
      expect(log.trim().split('\n')).toHaveLength(1);
      expect(JSON.parse(log)).toMatchObject({ level: 'fatal' });
    },
  );

  it.each(['uncaught', 'rejection'])(
    'closes and ends with 1 after an error nobody caught (%s)',
    async (behaviour) => {
      const { code, said, log } = await run(behaviour).ended;
      expect(code).toBe(1);
      expect(said).toContain('closed');
      expect(log).toContain('uncaught error: stopping');
    },
  );

  it('ends with 1 and says so when closing fails', async () => {
    const { child, started, ended } = run('close-error');
    await started;
    child.kill('SIGTERM');
    const { code, log } = await ended;
    expect(code).toBe(1);
    expect(log).toContain('the service did not stop in order');
    expect(log).toContain('the lock is gone');
  });
});
