import { randomInt } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LONG } from '@bundoc/shared/testing/long';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DevSetup } from './support/dev-setup.ts';

describe('npm start, begun by each test,', () => {
  let setup: DevSetup;
  beforeEach(async () => {
    setup = await DevSetup.make();
  });
  afterEach(() => setup[Symbol.asyncDispose]());

  it('says once that it made new stores, keeps its secrets and documents between two runs, stops on SIGTERM as well, and leaves no service running when it is killed', async () => {
    const token: string[] = [];
    const startAgain = async () => {
      const start = await setup.start();
      token.push(readFileSync(join(setup.dataDir, 'dev', 'kms-token'), 'utf8'));
      return start;
    };
    const first = await startAgain();
    first.child.kill('SIGTERM');
    const { code, stdout, stderr } = await first.exit;
    expect(code).toBe(0);
    expect(stderr).toContain(`bunkms: created a new store in ${join(setup.dataDir, 'kms')}: `);
    expect(stdout).toContain(`created a new store in ${setup.dataDir}: it has no projects yet`);

    const second = await startAgain();
    expect(token[0]).toBe(token[1]);
    second.child.kill('SIGKILL');
    const again = await second.exit;
    expect(`${again.stdout}${again.stderr}`).not.toContain('created a new store');
    await setup.expectAllStopped();
  });

  /** One of both in `npm test`, and each in `npm run test:long`. */
  const DYING = LONG
    ? (['bunkms', 'bundoc'] as const)
    : ([randomInt(2) === 0 ? 'bunkms' : 'bundoc'] as const);
  it.each(DYING)('says so and stops the other service when %s dies', async (name) => {
    const start = await setup.start();
    process.kill(setup.servicesOf(start.child)[name], 'SIGKILL');
    const { code, stderr } = await start.exit;
    expect(code).toBe(1);
    expect(stderr).toContain(`npm start: ${name} exited unexpectedly: SIGKILL`);
    await setup.expectAllStopped();
  });

  it('starts BunKMS alone for commands on the data folder of a stopped Bundoc, and nothing for another name', async () => {
    const first = await setup.start();
    first.child.kill('SIGTERM');
    expect((await first.exit).code).toBe(0);
    const alone = setup.script('start.mjs', 'bunkms');
    await expect.poll(alone.output, { timeout: PATIENT_MS }).toContain('BunKMS runs alone');
    const { stdout } = await setup.script('command.mjs', 'bundoc', 'doctor').exit;
    expect(stdout).toMatch(/^ok +kms ready /m);
    expect(stdout).toMatch(/^fail +url +nothing listens at /m);
    alone.child.kill('SIGTERM');
    expect((await alone.exit).code).toBe(0);
    const other = await setup.script('start.mjs', 'kms').exit;
    expect([other.code, other.stderr]).toEqual([1, expect.stringContaining('"kms" is not understood')]);
  });

  it('names a service that cannot start, and the reason', async () => {
    const { code, stderr } = await setup.script('start.mjs', { BUNDOC_KMS_DEADLINE_MS: '0' }).exit;
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^npm start: bundoc exited unexpectedly: the configuration is not valid: BUNDOC_KMS_DEADLINE_MS: .*$/m,
    );
    await setup.expectAllStopped();
  });

  it('issues no token and creates no file before the first start', async () => {
    const { code, stdout, stderr } = await setup.script(
      'command.mjs',
      'bunkms',
      'token',
      'issue',
      '--typ',
      'client',
    ).exit;
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    // A folder that only a variable names is a usual reason.
    expect(stderr).toBe(
      `npm run bunkms: there is no ${join(setup.dataDir, 'kms')}: run "npm start" once, with the same BUNDOC_DATA_DIR and BUNKMS_* variables\n`,
    );
    expect(existsSync(join(setup.dataDir, 'kms'))).toBe(false);
  });
});
