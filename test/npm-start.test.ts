import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '@bundoc/shared/testing/free-port';
import { LONG } from '@bundoc/shared/testing/long';
import { processes } from '@bundoc/shared/testing/processes';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const LAST_WORDS = 'Another token: ';

interface Script {
  readonly child: ChildProcess;
  /** The output so far. */
  output(): string;
  readonly exit: Promise<{ code: number | null; stdout: string; stderr: string }>;
}

let dataDir: string;
let environment: Record<string, string>;
const running = new Set<ChildProcess>();
/** Process ids of services that may still run. */
const services = new Set<number>();

async function begin(): Promise<void> {
  dataDir = mkdtempSync(join(tmpdir(), 'bundoc start '));
  environment = { BUNDOC_DATA_DIR: dataDir, ...(await freePorts()) };
}
async function end(): Promise<void> {
  for (const child of running) child.kill('SIGKILL');
  for (const { pid } of processes()) if (services.delete(pid)) process.kill(pid, 'SIGKILL');
  await Promise.all([...running].map((child) => once(child, 'close')));
  rmSync(dataDir, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
}

/** A start takes 6 s of processor time, so these tests share one. */
describe('npm start', () => {
  let start: Script;
  beforeAll(async () => {
    await begin();
    start = script('start.mjs');
    await untilWelcome(start);
  });
  afterAll(end);

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
    const issued = await script(
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
    const doctor = await script('command.mjs', 'bundoc', 'doctor', '--json', { XDG_CONFIG_HOME: dataDir })
      .exit;
    expect([doctor.code, JSON.parse(doctor.stdout)]).toMatchObject([0, { ok: true }]);
    expect(doctor.stdout).toContain(`http://127.0.0.1:${environment['BUNDOC_PORT']}`);

    // A second start fails, on the same ports and then on the same data.
    const samePorts = await script('start.mjs').exit;
    expect(samePorts).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^npm start: port \d+ .* in use .*BUNDOC_PORT\n$/),
    });
    const sameData = await script('start.mjs', await freePorts()).exit;
    expect(sameData.code).toBe(1);
    expect(sameData.stderr).toMatch(/^npm start: bundoc exited unexpectedly: .*in use/m);

    // From a terminal with npm in between, the signal arrives twice and counts once.
    start.child.kill('SIGINT');
    start.child.kill('SIGINT');
    expect(await start.exit).toMatchObject({ code: 0 });
    await expectAllStopped();
  });
});

describe('npm start, begun by each test,', () => {
  beforeEach(begin);
  afterEach(end);

  it('says once that it made new stores, keeps its secrets and documents between two runs, stops on SIGTERM as well, and leaves no service running when it is killed', async () => {
    const token: string[] = [];
    const startAgain = async () => {
      const start = script('start.mjs');
      await untilWelcome(start);
      token.push(readFileSync(join(dataDir, 'dev', 'kms-token'), 'utf8'));
      return start;
    };
    const first = await startAgain();
    first.child.kill('SIGTERM');
    const { code, stdout, stderr } = await first.exit;
    expect(code).toBe(0);
    expect(stderr).toContain(`bunkms: created a new store in ${join(dataDir, 'kms')}: `);
    expect(stdout).toContain(`created a new store in ${dataDir}: it has no projects yet`);

    const second = await startAgain();
    expect(token[0]).toBe(token[1]);
    second.child.kill('SIGKILL');
    const again = await second.exit;
    expect(`${again.stdout}${again.stderr}`).not.toContain('created a new store');
    await expectAllStopped();
  });

  /** One of both in `npm test`, and each in `npm run test:long`. */
  const DYING = LONG
    ? (['bunkms', 'bundoc'] as const)
    : ([randomInt(2) === 0 ? 'bunkms' : 'bundoc'] as const);
  it.each(DYING)('says so and stops the other service when %s dies', async (name) => {
    const start = script('start.mjs');
    await untilWelcome(start);
    process.kill(servicesOf(start.child)[name], 'SIGKILL');
    const { code, stderr } = await start.exit;
    expect(code).toBe(1);
    expect(stderr).toContain(`npm start: ${name} exited unexpectedly: SIGKILL`);
    await expectAllStopped();
  });

  it('names a service that cannot start, and the reason', async () => {
    const { code, stderr } = await script('start.mjs', { BUNDOC_KMS_DEADLINE_MS: '0' }).exit;
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^npm start: bundoc exited unexpectedly: the configuration is not valid: BUNDOC_KMS_DEADLINE_MS: .*$/m,
    );
    await expectAllStopped();
  });

  it('issues no token and creates no file before the first start', async () => {
    const { code, stdout, stderr } = await script(
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
      `npm run bunkms: there is no ${join(dataDir, 'kms')}: run "npm start" once, with the same BUNDOC_DATA_DIR and BUNKMS_* variables\n`,
    );
    expect(existsSync(join(dataDir, 'kms'))).toBe(false);
  });
});

/** Runs a script of the project, with arguments or more variables. */
function script(name: string, ...more: (string | Record<string, string>)[]): Script {
  const args = more.filter((part) => typeof part === 'string');
  const env = Object.assign(
    { ...process.env, ...environment },
    ...more.filter((part) => typeof part !== 'string'),
  );
  const child = spawn(process.execPath, [join(root, 'scripts', name), ...args], { cwd: root, env });
  running.add(child);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const exit = once(child, 'close').then(([code]) => {
    running.delete(child);
    return { code, stdout, stderr };
  });
  return { child, exit, output: () => stdout };
}

async function untilWelcome(start: Script): Promise<void> {
  const ended = start.exit.then(({ stdout, stderr }) => {
    throw new Error(`it ended before it was ready\n${stdout}\n${stderr}`);
  });
  while (!start.output().includes(LAST_WORDS))
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 50))]);
  ended.catch(() => undefined);
  servicesOf(start.child);
}

/** The processes of both services, by name. */
function servicesOf(supervisor: ChildProcess): { bunkms: number; bundoc: number } {
  const children = processes().filter(({ parent }) => parent === supervisor.pid);
  const pidOf = (name: string) =>
    children.find(({ args }) => args.includes(`packages/${name}/dist/main.js`))?.pid ?? Number.NaN;
  const pids = { bunkms: pidOf('bunkms'), bundoc: pidOf('bundoc') };
  for (const pid of Object.values(pids)) services.add(pid);
  expect(Object.values(pids)).not.toContain(Number.NaN);
  return pids;
}

/** Expects that no service process is left. Free ports alone would not show that. */
async function expectAllStopped(): Promise<void> {
  await expect.poll(() => processes().filter(({ pid }) => services.has(pid))).toEqual([]);
  services.clear();
}

async function freePorts(): Promise<Record<string, string>> {
  const names = ['BUNDOC_PORT', 'BUNKMS_PORT', 'BUNKMS_INTERNAL_PORT'];
  return Object.fromEntries(await Promise.all(names.map(async (name) => [name, String(await freePort())])));
}
