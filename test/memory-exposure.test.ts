import { fileURLToPath } from 'node:url';
import { runNode } from '@bundoc/shared/testing/node-process';
import { describe, expect, it } from 'vitest';

/** Runs a service, or its command line, with options of Node until it exits. */
async function run(
  service: string,
  options: readonly string[],
  environment: Record<string, string> = {},
  command?: string,
) {
  const module = command === undefined ? 'main.ts' : 'cli/main.ts';
  const main = fileURLToPath(new URL(`../packages/${service}/src/${module}`, import.meta.url));
  const args = [...options, main, ...(command === undefined ? [] : [command])];
  const { code, stdout, stderr } = await runNode(args, environment);
  return { code, output: stdout + stderr };
}

describe.each(['bunkms', 'bundoc'])('%s in production', (service) => {
  it.each([
    ['--heapsnapshot-signal=SIGUSR2', {}],
    ['--report-on-signal', { NODE_ENV: 'production' }],
    ['--inspect=127.0.0.1:0', { NODE_ENV: 'anything' }],
  ])('does not start with %s, and says why', async (option, environment: Record<string, string>) => {
    const { code, output } = await run(service, [option], environment);
    expect(code).toBe(1);
    expect(output).toContain(`${option.split('=')[0]}: not in production`);
  });

  it('runs no command with such an option', async () => {
    const { code, output } = await run(
      service,
      ['--heap-prof'],
      {},
      service === 'bunkms' ? 'status' : 'verify',
    );
    expect(code).toBe(2);
    expect(output).toContain('--heap-prof: not in production');
  });

  it('does not start with such an option in NODE_OPTIONS', async () => {
    const { code, output } = await run(service, [], { NODE_OPTIONS: '--report-uncaught-exception' });
    expect(code).toBe(1);
    expect(output).toContain('NODE_OPTIONS: --report-uncaught-exception: not in production');
  });
});
