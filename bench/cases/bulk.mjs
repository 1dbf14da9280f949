// Import and export through the command line.

import { spawnSync } from 'node:child_process';
import { createWriteStream, rmSync } from 'node:fs';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { documentOf } from '../lib/documents.mjs';
import { round } from '../lib/report.mjs';

const cli = fileURLToPath(new URL('../../packages/bundoc/dist/cli/main.js', import.meta.url));

/** `bundoc import` and `bundoc export` of many documents of 1 KiB, from start to end of the process. */
export async function transferTarget({ report, bundoc, token, directory, quick }) {
  const count = quick ? 50_000 : 200_000;
  const source = join(directory, 'import.ndjson');
  await write(source, count);
  const run = (...args) => {
    const begun = performance.now();
    const { status, stderr } = spawnSync(process.execPath, [cli, ...args], {
      env: { ...process.env, BUNDOC_URL: bundoc.url, BUNDOC_TOKEN: token },
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`bundoc ${args[0]} failed: ${stderr}`);
    return count / ((performance.now() - begun) / 1_000);
  };
  const rates = [];
  for (const project of ['p1-import-0', 'p1-import-1'])
    rates.push(run('import', project, source, '--collection', 'notes'));
  report.target('bundoc import, documents/s', rates, 10_000, 'at least');
  const exported = run('export', 'p1-import-1', join(directory, 'export.ndjson'));
  report.note(`\`bundoc export\` of ${count} documents of 1 KiB made ${round(exported)} documents/s.`);
  for (const name of ['import.ndjson', 'export.ndjson']) rmSync(join(directory, name));
}

async function write(path, count) {
  const file = createWriteStream(path);
  const body = documentOf(1_000).toString().slice(1);
  for (let at = 0; at < count; at++)
    if (!file.write(`{"_id":"d${at}",${body}\n`)) await new Promise((resolve) => file.once('drain', resolve));
  file.end();
  await finished(file);
}
