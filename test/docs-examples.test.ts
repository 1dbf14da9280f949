import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Installation } from './support/installation.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const ORIGIN = 'http://127.0.0.1:8080';

/** The shell examples of a page, in order. */
function examplesOf(page: string): string[] {
  const text = readFileSync(`${root}/${page}`, 'utf8');
  return [...text.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, code]) => String(code));
}

/**
 * Precedes the examples: an unset variable or an answer without success ends the script. `npm run token`
 * needs a folder that these tests do not have, and a stream of events would not end, so both are replaced.
 */
const PREAMBLE = `
set -euo pipefail
npm() { echo "$GIVEN_TOKEN"; }
curl() {
  case "$*" in
    *text/event-stream*) command curl --max-time 1 "$@" || [ $? = 28 ];;
    *) command curl --fail-with-body "$@"; echo;;
  esac
}
`;

let installation: Installation;
beforeAll(async () => {
  installation = await Installation.start();
});
afterAll(() => installation[Symbol.asyncDispose]());

it(
  'the examples of docs/documents.md, docs/query.md and docs/updates.md run after the quick start of the README, and define every variable',
  needs('curl'),
  async () => {
    const [quickStart] = examplesOf('README.md').filter((code) => code.startsWith('TOKEN='));
    const pages = ['docs/documents.md', 'docs/query.md', 'docs/updates.md'].map(examplesOf);
    expect(pages.map(({ length }) => length)).toEqual([2, 2, 1]);
    const script = [quickStart, ...pages.flat()].join('\n').replaceAll(ORIGIN, installation.url);
    const token = await installation.client(['project-a'], ['docs:read', 'docs:write']);
    const { PATH } = process.env;
    const { stdout } = await promisify(execFile)('bash', ['-c', `${PREAMBLE}${script}`], {
      env: { PATH, GIVEN_TOKEN: token },
    });
    const answers = stdout.split('\n').filter((line) => line.startsWith('{'));
    expect(answers.length).toBeGreaterThan(7);
    expect(JSON.parse(answers.at(-5) ?? '')).toEqual({
      count: expect.any(Number),
      as_of: expect.any(Number),
    });
    expect(JSON.parse(answers.at(-4) ?? '')).toEqual({
      groups: [{ group: {}, figures: { notes: 2, largest: null } }],
      as_of: expect.any(Number),
    });
    expect(JSON.parse(answers.at(-3) ?? '')).toMatchObject({
      groups: [{ group: {}, figures: { notes: 2, tags: expect.any(Number) } }],
    });
    expect(JSON.parse(answers.at(-2) ?? '')).toMatchObject({ changed: expect.any(Number) });
    expect(JSON.parse(answers.at(-1) ?? '')).toEqual({ matched: 0, deleted: 0, ids: [] });
  },
);
