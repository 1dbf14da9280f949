import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { LONG } from '@bundoc/shared/testing/long';
import { PROGRAMS, type ProgramName } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');

/** For each program, the project and a short file of its tests. */
const USES: Readonly<Record<ProgramName, readonly [project: string, file: string][]>> = {
  docker: [['containers', 'test/containers/compose.test.ts']],
  postgresql: [
    ['postgres', 'test/patch.test.ts'],
    ['postgres-between-others', 'test/patch.test.ts'],
    ['integration', 'packages/bundoc/test/postgres-schema.test.ts'],
  ],
  chromium: [['integration', 'test/console-large.test.ts']],
  haproxy: [['integration', 'test/proxies.test.ts']],
  nginx: [['integration', 'test/proxies.test.ts']],
  zsh: [['integration', 'test/completion.test.ts']],
  fish: [['integration', 'test/completion.test.ts']],
  promtool: [['integration', 'test/metrics.test.ts']],
  curl: [['integration', 'test/docs-examples.test.ts']],
  python: [['integration', 'test/open-by-hand.test.ts']],
  httpx: [['integration', 'test/docs-python.test.ts']],
  moto: [['integration', 'packages/bunkms/test/outside-aws-kms.test.ts']],
  vectors: [['unit', 'packages/shared/src/http/bearer-auth-vectors.test.ts']],
  softhsm: [['integration', 'packages/bunkms/test/outside-pkcs11.test.ts']],
  tpm: [['integration', 'packages/bunkms/test/outside-pkcs11.test.ts']],
  systemd: [['integration', 'test/systemd-credential.test.ts']],
  registry: [['integration', 'test/release.test.ts']],
  mount: [['integration', 'test/disk-full.test.ts']],
};

/** Runs Vitest with hidden programs, as on a machine that does not have them. */
async function run(hidden: string, uses: readonly (readonly [string, string])[]) {
  const required = new Set<string>(Object.values(PROGRAMS).map(({ variable }) => variable));
  const inherited = Object.entries(process.env).filter(
    ([name]) => !required.has(name) && name !== 'TEST_COUNT_FILE' && !name.startsWith('VITEST'),
  );
  const projects = new Set(uses.map(([project]) => project));
  const args = [
    // One process for each project: most of a run is to load the code, and few of the tests run.
    ...[
      join(root, 'node_modules/vitest/vitest.mjs'),
      'run',
      '--config',
      'vitest.workspace.ts',
      '--maxWorkers=1',
    ],
    ...[...projects].flatMap((project) => ['--project', project, '--project', `${project}-alone`]),
    ...new Set(uses.map(([, file]) => file)),
  ];
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { ...Object.fromEntries(inherited), WITHOUT_PROGRAMS: hidden },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk) => {
      output += String(chunk);
    });
  const [code] = await once(child, 'close');
  return { code, output, lines: output.trimEnd().split('\n') };
}

const names = Object.keys(USES) as ProgramName[];

const CLOSING_LINE = /^\d+ passed, 0 failed, [1-9]\d* skipped$/;

describe('tests on a machine without optional programs', () => {
  it('pass in every project, and the end names what is missing', async () => {
    const { code, output, lines } = await run(
      'all',
      names.flatMap((name) => USES[name]),
    );
    expect(code, output).toBe(0);
    expect(lines.at(-1)).toMatch(CLOSING_LINE);
    for (const name of names)
      expect(lines).toContainEqual(
        expect.stringMatching(
          new RegExp(`^ +[1-9]\\d* tests? needs? ${RegExp.escape(PROGRAMS[name].title)}`),
        ),
      );
  });

  const each = LONG ? names : [];
  it.each(each)('pass without %s alone', async (name) => {
    const { code, output, lines } = await run(name, USES[name]);
    expect(code, output).toBe(0);
    expect(lines.at(-1)).toMatch(CLOSING_LINE);
    expect(lines).toContainEqual(expect.stringContaining(` ${PROGRAMS[name].title}`));
  });
});
