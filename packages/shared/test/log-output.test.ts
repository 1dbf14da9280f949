import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const logger = fileURLToPath(new URL('../src/logs/logger.ts', import.meta.url));

/** The output of a script with a `logger` on a terminal, which `script` of util-linux provides. */
function atTerminal(script: string, environment: Record<string, string> = {}): string {
  const code = `import { createLogger } from ${JSON.stringify(logger)}; const logger = createLogger({ service: 'bunkms', level: 'info' }); ${script}`;
  const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
  const command = [process.execPath, '--conditions=@bundoc/source', '--input-type=module', '-e', code];
  const { stdout } = spawnSync('script', ['-qec', command.map(quoted).join(' '), '/dev/null'], {
    encoding: 'utf8',
    env: { ...process.env, ...environment },
    // At the end of its input it would send an end-of-file to the terminal.
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return stdout;
}

/** The messages on the standard output of a process that logs and exits. */
function messagesOf(script: string): string[] {
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [
      ...[
        '--conditions=@bundoc/source',
        '--disable-warning=ExperimentalWarning',
        '--input-type=module',
        '-e',
      ],
      `import { createLogger } from ${JSON.stringify(logger)};
       const logger = createLogger({ service: 'bunkms', level: 'info' });
       ${script}`,
    ],
    { encoding: 'utf8' },
  );
  if (stdout === '') throw new Error(`nothing was logged: ${stderr}`);
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => (JSON.parse(line) as { msg: string }).msg);
}

describe('the log', () => {
  it('is complete and in order on standard output when the process exits in the same turn', () => {
    expect(messagesOf(`logger.info('one'); logger.warn('two'); process.exit(0);`)).toEqual(['one', 'two']);
  });

  it('has readable lines on a terminal, in colours unless NO_COLOR is set', () => {
    const script = `logger.warn({ err: new Error('the cause'), n: 1 }, 'it failed');`;
    const plain = atTerminal(script, { NO_COLOR: '1' });
    expect(plain).toMatch(
      /^\d\d:\d\d:\d\d\.\d{3} warn {2}bunkms {2}it failed: the cause {2}n=1 {2}at=.*\r\n$/,
    );
    expect(atTerminal(script, { NO_COLOR: '' })).toContain('\u001b[33mwarn \u001b[0m');
  });

  it('is complete when an uncaught error ends the process', () => {
    expect(messagesOf(`logger.info('one'); throw new Error('uncaught');`)).toEqual(['one']);
  });

  it('is complete when the process is killed in a later turn', () => {
    expect(
      messagesOf(
        `logger.info('one'); setImmediate(() => setImmediate(() => process.kill(process.pid, 'SIGKILL')));`,
      ),
    ).toEqual(['one']);
  });

  it('is written at once, with all earlier lines, when a line is fatal or the log is flushed', () => {
    expect(
      messagesOf(`logger.info('one'); logger.fatal('two'); process.kill(process.pid, 'SIGKILL');`),
    ).toEqual(['one', 'two']);
    expect(messagesOf(`logger.info('one'); logger.flush(); process.kill(process.pid, 'SIGKILL');`)).toEqual([
      'one',
    ]);
  });
});
