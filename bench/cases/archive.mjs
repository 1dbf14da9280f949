// What shipping to an archive costs requests.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { documentOf, documents, fill, HOT_DOCUMENTS, hotPaths } from '../lib/documents.mjs';
import { Installation } from '../lib/processes.mjs';

const TURNS = 7;

/** Rates with an archive in a folder of the same disk / without one, each in turns. */
export async function archiveTargets(bench) {
  const { report, keep, directory, quick } = bench;
  await bench.bundoc.stop();
  const nodes = [];
  for (const name of ['archived', 'plain']) {
    const folder = join(directory, name);
    mkdirSync(join(folder, 'archive'), { recursive: true });
    const installation = await keep(Installation.start(folder));
    const env = name === 'archived' ? { BUNDOC_ARCHIVE: join(folder, 'archive') } : {};
    const node = await keep(installation.startBundoc(env));
    const { token } = installation;
    await fill({ directory: folder, token }, node, 'hot', HOT_DOCUMENTS, documentOf(1_024));
    await fill({ directory: folder, token }, node, 'created', 1, documentOf(1_024));
    nodes.push([node, token]);
  }
  const [[archived, archivedToken], [plain, plainToken]] = nodes;
  const common = { connections: 64, seconds: quick ? 2 : 5, steady: true };
  const loads = {
    GET: { ...common, method: 'GET', paths: hotPaths('hot') },
    create: { ...common, method: 'POST', body: documentOf(1_024), paths: documents('created') },
  };
  for (const [name, load] of Object.entries(loads)) {
    const ratios = await report.pairs(
      TURNS,
      `${name} with an archive`,
      [archived, { ...load, token: archivedToken }],
      [`${name} without`, plain, { ...load, token: plainToken }],
    );
    report.target(`${name}: with an archive / without`, ratios, 0.95, 'at least');
  }
  for (const [node] of nodes) await node.stop();
  bench.bundoc = await keep(bench.installation.startBundoc());
}
