import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const logger = fileURLToPath(new URL('../src/runtime/logger.ts', import.meta.url));

/** The messages on the standard output of a process that logs and ends. */
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

describe('what is logged', () => {
  it('is on standard output, in order, when the process ends by itself in the same turn', () => {
    expect(messagesOf(`logger.info('one'); logger.warn('two'); process.exit(0);`)).toEqual(['one', 'two']);
  });

  it('is there when an error that nobody caught ends the process', () => {
    expect(messagesOf(`logger.info('one'); throw new Error('uncaught');`)).toEqual(['one']);
  });

  it('is there when the process is killed in a later turn', () => {
    expect(
      messagesOf(
        `logger.info('one'); setImmediate(() => setImmediate(() => process.kill(process.pid, 'SIGKILL')));`,
      ),
    ).toEqual(['one']);
  });

  it('is there at once when it is fatal or flushed, with what came before', () => {
    expect(
      messagesOf(`logger.info('one'); logger.fatal('two'); process.kill(process.pid, 'SIGKILL');`),
    ).toEqual(['one', 'two']);
    expect(messagesOf(`logger.info('one'); logger.flush(); process.kill(process.pid, 'SIGKILL');`)).toEqual([
      'one',
    ]);
  });
});
