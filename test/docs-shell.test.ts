import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, globSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '@bundoc/shared/testing/free-port';
import { LONG } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { sampleOf } from '@bundoc/shared/testing/sample';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PARTS } from './support/docs-parts.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

interface Block {
  readonly code: string;
  /** The reason why the block is not run, if it is not. */
  readonly reason: string | undefined;
}

/** The shell blocks of a page, in order, without the indentation of a surrounding list. */
function blocksOf(page: string): Block[] {
  const text = readFileSync(join(root, page), 'utf8');
  const found = text.matchAll(/^(?: *<!-- not run: (.+) -->\n)?( *)```(?:sh|bash)\n([\s\S]*?)^\2```$/gm);
  return [...found].map(([, reason, indent, code = '']) => ({
    code: code.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
    reason,
  }));
}

/** A page after those whose blocks run first: it may name one, which may name another. */
function withBeginnings(page: string): string[] {
  const [, name] = /<!-- begins with: (\S+) -->/.exec(readFileSync(join(root, page), 'utf8')) ?? [];
  return name === undefined ? [page] : [...withBeginnings(normalize(join('docs', name))), page];
}

const ONE_MACHINE = 'docs/how-to/one-machine.md';
/** The pages that `docs-examples.test.ts` and `systemd-credential.test.ts` run. */
const RUN_ELSEWHERE = [
  'docs/documents.md',
  'docs/query.md',
  'docs/updates.md',
  'docs/how-to/systemd-credential.md',
];
/** Pages whose commands are refused on purpose, with the statuses. */
const REFUSALS: Readonly<Record<string, readonly number[]>> = {
  'docs/tutorial.md': [403, 410],
  'docs/how-to/erase-a-customer.md': [410],
  // Four tokens beyond the grant, an application's page without its cookie, and a token that was revoked.
  'docs/how-to/tokens-for-your-application.md': [403, 403, 403, 403, 401, 401],
};

const pages = ['*.md', 'docs/**/*.md', 'packages/*/README.md']
  .flatMap((pattern) => globSync(pattern, { cwd: root }))
  .filter((page) => !RUN_ELSEWHERE.includes(page))
  .filter((page) => blocksOf(page).some(({ reason }) => reason === undefined))
  .sort();

/** Pages that a newcomer follows first. They run each time, in `npm test` on one installation. */
const FIRST_PAGES = ['README.md', 'docs/tutorial.md'];
/** How many of the other pages run in `npm test`. All run in `npm run test:long`. */
const SAMPLED = 1;
/** `DOCS_SEED` repeats the sample that the title names. */
const SEED = Number(process.env['DOCS_SEED'] ?? randomInt(1, 2_147_483_646));
const others = pages.filter((page) => !FIRST_PAGES.includes(page));
const alone = (page: string) => [page];
const chosen = LONG ? pages.map(alone) : [FIRST_PAGES, ...sampleOf(others, SAMPLED, SEED).map(alone)];

/**
 * Precedes the blocks of a page. It prints the status of each answer on standard error, ends a stream of
 * events, and stops the services of the page at the end.
 */
const PREAMBLE = `
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
curl() {
  case "$*" in
    *text/event-stream*) command curl --max-time 2 "$@" || [ $? = 28 ];;
    *) command curl "$@" -w '\\n%{stderr}status %{http_code} %{url_effective}\\n';;
  esac
}
`;

/** A git work tree, as a clone is. The blocks of the page run in it. */
let folder: string;
let ports: Record<'BUNDOC_PORT' | 'BUNKMS_PORT' | 'BUNKMS_INTERNAL_PORT', string>;
/** The port of the application that a page may start, in place of 3000. */
let applicationPort: number;
const running = new Set<ChildProcess>();

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bundoc-docs-'));
  for (const name of ['packages', 'scripts', 'node_modules', 'package.json'])
    symlinkSync(join(root, name), join(folder, name));
  copyFileSync(join(root, '.gitignore'), join(folder, '.gitignore'));
  git('init', '--quiet');
  git('add', '--all');
  const [bundoc, bunkms, internal] = [await freePort(), await freePort(), await freePort()];
  applicationPort = await freePort();
  ports = {
    BUNDOC_PORT: String(bundoc),
    BUNKMS_PORT: String(bunkms),
    BUNKMS_INTERNAL_PORT: String(internal),
  };
});
afterEach(async () => {
  for (const child of running) child.kill('SIGTERM');
  await Promise.all([...running].map((child) => once(child, 'close')));
  rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
});

/** Runs git in the folder, regardless of the settings of this machine, and of a hook that runs the tests. */
function git(...args: string[]): string {
  const env = { PATH: process.env['PATH'], GIT_CONFIG_GLOBAL: '/dev/null', GIT_CONFIG_SYSTEM: '/dev/null' };
  return execFileSync('git', args, { cwd: folder, env, encoding: 'utf8' });
}

/** The files in the folder that `git add .` would add. */
function filesForGit(): string[] {
  const lines = git('status', '--porcelain', '--untracked-files=all').split('\n');
  return lines.filter((line) => line.startsWith('??')).map((line) => line.slice(3));
}

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function start(command: string, args: readonly string[], more: Record<string, string>) {
  // See vitest.workspace.ts for the compile cache.
  const { PATH = '', HOME = '', TMPDIR, NODE_COMPILE_CACHE = '' } = process.env;
  const child = spawn(command, args, {
    cwd: folder,
    env: { PATH, HOME, NODE_COMPILE_CACHE, ...(TMPDIR === undefined ? {} : { TMPDIR }), ...ports, ...more },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name].on('data', (chunk: Buffer) => {
      output[name] += chunk.toString();
    });
  const ended = once(child, 'close').then(([code]): Ended => {
    running.delete(child);
    return { code, ...output };
  });
  return { output, ended };
}

/** Replaces the ports of a page with those of this test. */
function onOwnPorts(text: string): string {
  return text
    .replaceAll('127.0.0.1:8080', `127.0.0.1:${ports.BUNDOC_PORT}`)
    .replaceAll('127.0.0.1:8081', `127.0.0.1:${ports.BUNKMS_PORT}`)
    .replaceAll('127.0.0.1:8082', `127.0.0.1:${ports.BUNKMS_INTERNAL_PORT}`)
    .replaceAll(/(127\.0\.0\.1:|\.listen\()3000\b/g, `$1${applicationPort}`);
}

/** The variables that a page sets for `npm start`. */
function variablesOf(page: string): Record<string, string> {
  const starts = blocksOf(page).flatMap(({ code }) => /^((?:[A-Z_]+=\S+ )+)npm start$/m.exec(code) ?? []);
  const variables = onOwnPorts(starts[1] ?? '').matchAll(/([A-Z_]+)=(\S+)/g);
  return Object.fromEntries([...variables].map(([, name = '', value = '']) => [name, value]));
}

/** The installation that `npm start` makes, for pages that do not start services themselves. */
async function startInstallation(page: string): Promise<void> {
  const services = start('node', [join(root, 'scripts/start.mjs')], {
    BUNDOC_DATA_DIR: join(folder, 'data'),
    ...variablesOf(page),
  });
  const early = services.ended.then(({ stderr }) => {
    throw new Error(`npm start has ended: ${stderr}`);
  });
  early.catch(() => undefined);
  await Promise.race([
    expect.poll(() => services.output.stdout, { timeout: 120_000 }).toContain('Another token: '),
    early,
  ]);
}

/** The script of a page, on the ports of this test. */
function scriptOf(page: string): string {
  const blocks = withBeginnings(page).flatMap(blocksOf);
  const code = blocks.filter(({ reason }) => reason === undefined).map((block) => block.code);
  return onOwnPorts(`${PREAMBLE}${code.join('\n')}`);
}

describe(`the shell blocks of the documentation (${LONG ? 'all pages' : `DOCS_SEED=${SEED}`})`, () => {
  it('are found, and each block that is not run gives a reason', () => {
    expect(pages).toEqual(expect.arrayContaining([...FIRST_PAGES, ONE_MACHINE]));
    expect(pages.length).toBeGreaterThan(9);
    const reasons = pages.flatMap((page) => blocksOf(page).flatMap(({ reason }) => reason ?? []));
    expect(reasons.filter((reason) => reason.length < 10)).toEqual([]);
  });

  it('stop every program that they start in the background', () => {
    const started = pages.flatMap((page) => {
      const code = blocksOf(page)
        .map((block) => block.code)
        .join('\n');
      const begun = [...code.matchAll(/[^&]&\n(?:(\w+)=\$!\n)?/g)];
      return begun.map(([, name]) => [page, name !== undefined && code.includes(`kill $${name}\n`)]);
    });
    expect(started).toContainEqual(['docs/how-to/tokens-for-your-application.md', true]);
    expect(started.filter(([, isStopped]) => isStopped !== true)).toEqual([]);
  });

  it('delete no project that another page, or what npm start prints, uses', () => {
    const developed = [...pages, ...RUN_ELSEWHERE, 'docs/how-to/from-another-language.md'].filter(
      (page) => !withBeginnings(page).includes(ONE_MACHINE),
    );
    const texts = [...new Set([...developed, 'scripts/start.mjs'])].map(
      (page) => [page, readFileSync(join(root, page), 'utf8')] as const,
    );
    const deleted = texts.flatMap(([page, text]) =>
      [...text.matchAll(/\?confirm=([\w-]+)/g)].map(([, name = '']) => ({ page, name })),
    );
    expect(deleted.length).toBeGreaterThan(2);
    const used = deleted.flatMap(({ page, name }) => {
      const use = new RegExp(`(projects/|project\\('|--project(?:'?, '|s? ))${name}\\b`);
      return texts
        .filter(([other, text]) => other !== page && use.test(text))
        .map(([other]) => [name, other]);
    });
    expect(used).toEqual([]);
  });

  for (const together of chosen)
    it(
      `of ${together.join(', ')} run in order, every answer has the documented status, and git sees no file that they make`,
      needs('curl', ...together.flatMap((page) => PARTS[page]?.programs ?? [])),
      async () => {
        await using parts = new AsyncDisposableStack();
        const [first = ''] = together;
        const ownServices = withBeginnings(first).includes(ONE_MACHINE);
        if (!ownServices) await startInstallation(first);
        const environment: Record<string, string> = ownServices
          ? {
              BUNDOC_KMS_URL: `http://127.0.0.1:${ports.BUNKMS_INTERNAL_PORT}`,
              BUNDOC_URL: `http://127.0.0.1:${ports.BUNDOC_PORT}`,
            }
          : { BUNDOC_DATA_DIR: join(folder, 'data') };
        for (const page of together) {
          const more = { ...environment, ...(await PARTS[page]?.start(parts)) };
          const { code, stdout, stderr } = await start('bash', ['-c', scriptOf(page)], more).ended;
          expect(code, `${stdout}\n${stderr}`).toBe(0);
          const statuses = [...stderr.matchAll(/^status (\d+) (\S+)$/gm)].filter(
            ([, , url]) => !url?.endsWith('/ready'),
          );
          const refused = statuses.map(([, status]) => Number(status)).filter((status) => status >= 400);
          expect(refused, `${stdout}\n${stderr}`).toEqual(REFUSALS[page] ?? []);
          expect(filesForGit()).toEqual([]);
        }
      },
    );
});
