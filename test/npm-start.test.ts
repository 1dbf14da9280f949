import { execFileSync } from 'node:child_process';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DevSetup, freePorts, type Script } from './support/dev-setup.ts';

// How it ends and starts again is in `npm-start-ends.test.ts`.

/** A start takes 6 s of processor time, so these tests share one. */
describe('npm start', () => {
  let setup: DevSetup;
  let start: Script;
  beforeAll(async () => {
    setup = await DevSetup.make();
    start = await setup.start();
  });
  afterAll(() => setup?.[Symbol.asyncDispose]());

  it('prints commands that store a document and read it back', needs('curl'), async () => {
    const [, token] = /^TOKEN=(\S+)$/m.exec(start.output()) ?? [];
    const commands = start.output().match(/^curl .*$/gm) ?? [];
    expect(commands).toHaveLength(2);
    const printed = execFileSync('sh', ['-c', commands.join('\n')], {
      env: { ...process.env, TOKEN: token },
    });
    // Each answer has its own line.
    const [stored, read] = printed.toString().trim().split('\n');
    expect(JSON.parse(stored ?? '')).toHaveProperty('_rev');
    expect(JSON.parse(read ?? '')).toMatchObject({ text: 'Hello, Bundoc' });
  });

  it('starts both services, and stops in order on Ctrl-C', async () => {
    // In a pipe, the log is JSON. A good start logs no warning, and the commands come last.
    const [log = '', afterwards] = start.output().split('\nBundoc listens on ');
    const lines = log.split('\n').filter((line) => line.startsWith('{'));
    expect(lines.length).toBeGreaterThan(1);
    expect(lines.filter((line) => JSON.parse(line).level !== 'info')).toEqual([]);
    expect(afterwards).toMatch(/^http.*\nAnother token: [^\n]*\n\n$/s);

    // Issue another token while the services run: only the token is printed.
    const issued = await setup.script(
      'command.mjs',
      'bunkms',
      'token',
      'issue',
      '--typ',
      'client',
      '--sub',
      'app',
      '--scope',
      'docs:read',
      '--project',
      'p',
    ).exit;
    expect(issued).toMatchObject({ code: 0, stdout: expect.stringMatching(/^[\w-]+\.[\w-]+\.[\w-]+\n$/) });

    // So does any command of bundoc, which finds the service without options.
    const doctor = await setup.script('command.mjs', 'bundoc', 'doctor', '--json', {
      XDG_CONFIG_HOME: setup.dataDir,
    }).exit;
    expect([doctor.code, JSON.parse(doctor.stdout)]).toMatchObject([0, { ok: true }]);
    expect(doctor.stdout).toContain(`http://127.0.0.1:${setup.environment['BUNDOC_PORT']}`);

    // A second start fails, on the same ports and then on the same data.
    const samePorts = await setup.script('start.mjs').exit;
    expect(samePorts).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^npm start: port \d+ .* in use .*BUNDOC_PORT\n$/),
    });
    const sameData = await setup.script('start.mjs', await freePorts()).exit;
    expect(sameData.code).toBe(1);
    expect(sameData.stderr).toMatch(/^npm start: bundoc exited unexpectedly: .*in use/m);

    // From a terminal with npm in between, the signal arrives twice and counts once.
    start.child.kill('SIGINT');
    start.child.kill('SIGINT');
    expect(await start.exit).toMatchObject({ code: 0 });
    await setup.expectAllStopped();
  });
});
