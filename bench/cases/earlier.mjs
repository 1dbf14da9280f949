// Bundoc beside an earlier build of itself, for what a change may have made slower.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { batchOf, documentOf, documents, fill, HOT_DOCUMENTS, hotPaths } from '../lib/documents.mjs';
import { startPostgres } from '../lib/processes.mjs';
import { say } from '../lib/report.mjs';
import { COLLECTION, fillVaried, index } from './queries.mjs';

const TURNS = 7;
const VARIED = 10_000;
const OWNERS = VARIED / 20;

/**
 * Rates of this build / of the build in `--earlier`, each in turns. Each has its own BunKMS, data folder and
 * database. Both are built, and their files and documents are the same.
 */
export async function earlierTargets(bench) {
  const { report, keep, directory, earlier, quick, engines } = bench;
  if (earlier === '') throw new Error('name the folder of a built checkout: --earlier <folder>');
  await bench.bundoc.stop();
  const { Installation } = await import(pathToFileURL(join(earlier, 'bench/lib/processes.mjs')).href);
  const folder = join(directory, 'earlier');
  mkdirSync(folder);
  const before = await keep(Installation.start(folder));
  for (const engine of engines) {
    const nodes = [];
    for (const installation of [bench.installation, before]) {
      const postgres = engine === 'postgres' && (await keep(startPostgres(directory)));
      if (postgres === undefined) break;
      const env = postgres && { BUNDOC_STORAGE: `${postgres.connectionString}?sslmode=disable` };
      nodes.push([await keep(installation.startBundoc(env || {})), installation]);
    }
    if (nodes.length < 2) {
      report.note('PostgreSQL is **not installed** here.');
      break;
    }
    say(`filling both, ${engine}`);
    // One storage holds each key.
    const project = (name) => `earlier-${name}-${engine}`;
    for (const [node, installation] of nodes) await fillBoth(bench, node, { project, engine, installation });
    const [[now, { token }], [base, { token: baseToken }]] = nodes;
    for (const [name, load] of Object.entries(loads(project, quick ? 2 : 3))) {
      // An earlier build may have no order there.
      if (engine === 'postgres' && name.endsWith('by index')) continue;
      const ratios = await report.pairs(
        TURNS,
        `${name}, ${engine}`,
        [now, { ...load, token }],
        [`${name}, ${engine}, earlier build`, base, { ...load, token: baseToken }],
      );
      report.target(`${name}, ${engine}: this build / the earlier`, ratios, 0.95, 'at least');
    }
    for (const [node] of nodes) await node.stop();
  }
  bench.bundoc = await keep(bench.installation.startBundoc());
}

async function fillBoth({ directory }, node, { project, engine, installation }) {
  const { token } = installation;
  await fill({ directory, token }, node, project('hot'), HOT_DOCUMENTS, documentOf(1_024));
  await fill({ directory, token }, node, project('created'), 1, documentOf(1_024));
  await fillVaried(node.url, project('varied'), VARIED, token);
  if (engine === 'postgres') return;
  const admin = installation.issueToken('client', 'docs:read docs:write docs:admin');
  await index(node.url, project('varied'), admin);
}

function loads(project, seconds) {
  const common = { connections: 64, seconds, steady: true };
  const batch = batchOf(documentOf(1_024), 100);
  const varied = COLLECTION(project('varied'));
  const owners = Array.from({ length: 500 }, (_, at) => ({ owner: `owner-${(at * 7_919) % OWNERS}` }));
  const asked = (path, body) => ({ ...common, method: 'POST', paths: [`${varied}/${path}`], bodies: body });
  return {
    GET: { ...common, method: 'GET', paths: hotPaths(project('hot')) },
    create: { ...common, method: 'POST', body: documentOf(1_024), paths: documents(project('created')) },
    'batch of 100 creates': {
      ...common,
      method: 'POST',
      body: batch,
      paths: [`/v1/projects/${project('created')}/batch`],
      connections: 8,
      kib: batch.length / 1_024,
    },
    'query of 20 by index': asked(
      'query',
      owners.map((where) => JSON.stringify({ where, limit: 20 })),
    ),
    'count by index': asked(
      'count',
      owners.map((where) => JSON.stringify({ where })),
    ),
    'count by a scan': { ...asked('count', ['{"where":{"done":true}}']), connections: 1 },
    'list of 100': {
      ...common,
      method: 'GET',
      paths: [`${documents(project('varied'))[0]}?limit=100`],
      connections: 16,
    },
    'page of 100 changes': {
      ...common,
      method: 'GET',
      paths: [`/v1/projects/${project('varied')}/changes?limit=100`],
      connections: 16,
    },
  };
}
