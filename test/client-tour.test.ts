import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { expect, it } from 'vitest';
import { Installation } from './support/installation.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

it('the tour in the client’s README runs, and prints what the README says', async () => {
  const readme = readFileSync(`${root}/packages/client/README.md`, 'utf8');
  const code = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, block]) => block).join('');
  const expected = [...code.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, printed]) => printed);
  expect(expected.length).toBeGreaterThan(5);
  await using installation = await Installation.start();
  const token = await installation.client(['tour'], ['docs:read', 'docs:write', 'docs:admin']);
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--conditions=@bundoc/source', '--input-type=module-typescript', '--eval', code],
    {
      cwd: root,
      env: { ...process.env, BUNDOC_URL: installation.url, BUNDOC_TOKEN: token },
      timeout: PATIENT_MS,
    },
  );
  expect(stdout.trim().split('\n')).toEqual(expected);
});
