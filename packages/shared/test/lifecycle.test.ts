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
  // Not the event `close`: a child whose channel was closed from this side never emits it.
  const ended = Promise.all([
    once(child, 'exit') as Promise<[number | null, string | null]>,
    ...[child.stdout, child.stderr].map((stream) => stream && once(stream, 'close')),
  ]).then(([[code, signal]]) => ({ code, signal, log, said }));
  return { child, started, ended };
}

describe('runService', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)(
    'exits with 0 after %s, once everything is closed',
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

  it.each([
    ['SIGTERM', 'started\ndrained\nclose 1\nclosed\n'],
    ['SIGINT', 'started\nclose 1\nclosed\n'],
  ] as const)('drains before it closes only when a process manager stops it: %s', async (signal, said) => {
    const { child, started, ended } = run('draining');
    await started;
    child.kill(signal);
    const outcome = await ended;
    expect(outcome).toMatchObject({ code: 0, said });
    expect(outcome.log.includes('"msg":"draining"')).toBe(signal === 'SIGTERM');
  });

  it('stops in order when its supervisor exits', async () => {
    const { child, started, ended } = run('plain');
    await started;
    child.disconnect();
    expect(await ended).toMatchObject({ code: 0, said: 'started\nclose 1\nclosed\n' });
  });

  it('stops when its supervisor exited while it was starting', async () => {
    expect(await run('orphaned-start').ended).toMatchObject({
      code: 0,
      said: expect.stringContaining('closed'),
    });
  });

  it('closes once, and waits for that, when two reasons to stop coincide', async () => {
    const { child, started, ended } = run('stopped-twice');
    await started;
    child.kill('SIGTERM');
    expect(await ended).toMatchObject({ code: 0, said: 'started\nclose 1\nclosed\n' });
  });

  it.each([
    [
      'config-error',
      [
        'the configuration is not valid: PORT: must be a whole number',
        'the configuration is not valid: HOST: must be set',
      ],
    ],
    ['start-error', ['the service did not start: the disk is gone']],
  ] as const)(
    'exits with 1 after a failed start (%s), even with a listener left, and logs a line for each fault',
    async (behaviour, faults) => {
      const { code, log } = await run(behaviour).ended;
      expect(code).toBe(1);
      const records = log
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { level: string; msg: string });
      expect(records.map(({ level, msg }) => [level, msg])).toEqual(faults.map((fault) => ['fatal', fault]));
    },
  );

  it.each(['uncaught', 'rejection'])(
    'closes and exits with 1 after an uncaught error (%s)',
    async (behaviour) => {
      const { code, said, log } = await run(behaviour).ended;
      expect(code).toBe(1);
      expect(said).toContain('closed');
      expect(log).toContain('uncaught error: stopping');
    },
  );

  it('exits with 1 and logs the error when closing fails', async () => {
    const { child, started, ended } = run('close-error');
    await started;
    child.kill('SIGTERM');
    const { code, log } = await ended;
    expect(code).toBe(1);
    expect(log).toContain('the service did not stop cleanly');
    expect(log).toContain('the lock is gone');
  });
});
