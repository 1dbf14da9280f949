import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import * as archiveCases from './cases/archive.mjs';
import * as bulkCases from './cases/bulk.mjs';
import * as documentCases from './cases/documents.mjs';
import * as earlierCases from './cases/earlier.mjs';
import * as enduranceCases from './cases/endurance.mjs';
import * as feedCases from './cases/feed.mjs';
import * as keyCases from './cases/keys.mjs';
import * as neighbourCases from './cases/neighbours.mjs';
import * as nodeCases from './cases/nodes.mjs';
import * as outsideKeyCases from './cases/outside-keys.mjs';
import * as postgresCases from './cases/postgres.mjs';
import * as postgresTenantCases from './cases/postgres-tenants.mjs';
import * as queryCases from './cases/queries.mjs';
import * as stateCases from './cases/states.mjs';
import * as tenantCases from './cases/tenants.mjs';
import { documentOf, fill, HOT_DOCUMENTS } from './lib/documents.mjs';
import { Installation, startPeer } from './lib/processes.mjs';
import { Report, say } from './lib/report.mjs';

/** The cases in order, each with the mode from which on it runs. */
const CASES = [
  ['get', documentCases.getTarget, 'always'],
  ['create', documentCases.createTarget, 'always'],
  ['batch', documentCases.batchTarget, 'always'],
  ['transfer', bulkCases.transferTarget, 'always'],
  ['projects', documentCases.projectsTarget, 'always'],
  ['tenants', tenantsOfEngines, 'all cases'],
  ['feed', feedCases.feedTarget, 'always'],
  ['postgres', postgresCases.postgresTarget, 'always'],
  ['postgres-nodes', postgresCases.postgresNodesTarget, 'always'],
  ['export', keyCases.exportTarget, 'always'],
  ['encrypt', keyCases.encryptTarget, 'always'],
  ['record', keyCases.recordTarget, 'all cases'],
  ['nodes', nodeCases.nodesTarget, 'all cases'],
  ['keys', keyCases.keysTarget, 'all cases'],
  ['kek', keyCases.kekTarget, 'all cases'],
  ['cases', documentCases.allCases, 'all cases'],
  ['sustained', documentCases.sustainedTarget, 'full'],
  ['size', documentCases.sizes, 'always'],
  ['query', queryCases.queryTargets, 'always'],
  ['order', queryCases.orderTargets, 'all cases'],
  ['states', stateCases.stateTargets, 'all cases'],
  ['outside-keys', outsideKeyCases.outsideKeysTarget, 'all cases'],
  ['neighbours', neighbourCases.neighboursTarget, 'by name'],
  ['archive', archiveCases.archiveTargets, 'all cases'],
  ['earlier', earlierCases.earlierTargets, 'by name'],
  ['endurance', enduranceCases.enduranceTarget, 'by name'],
];

const TENANTS_OF = { files: tenantCases.tenantsTarget, postgres: postgresTenantCases.postgresTenantsTarget };
const ENGINES = Object.keys(TENANTS_OF);
const PARTS = [...new Set([...tenantCases.TENANT_PARTS, ...postgresTenantCases.POSTGRES_TENANT_PARTS])];

const USAGE = `npm run bench [-- --quick | --full] [--dir <folder>] [--only <names>]

Measures Bundoc beside what it is to be compared with, all on this machine and in one go, since only ratios within
one run mean something. Writes bench/results/latest.{md,json} and prints the table.

--quick   the targets alone, about three minutes; without it all cases, about a quarter of an hour
--full    also 60 s of sustained creates and a project of a million documents (8 GB of disk)
--dir     where the data goes. ext4 keeps inodes out of use for minutes after their files were deleted, and to look past many of
          them costs up to 100 µs a new file: after other work that deletes files, give it a file system of its own
--only    of ${CASES.map(([name]) => name).join(', ')}: some, joined by commas, in any mode
--tenants of the case "tenants": their numbers, joined by commas; 1,64,600,10000 by default, with --quick up to 600
--engines of ${ENGINES.join(', ')}: those of the cases "tenants" and "earlier", joined by commas; both by default
--parts   of ${PARTS.join(', ')}: those of the case "tenants" that are measured, joined by commas; all by default
--profiles  a folder for a profile of Bundoc's main thread in each load of the case "tenants", or attack of the case "neighbours"; rates are lower by it
--attacks of the case "neighbours", which is measured by its name alone: ${Object.keys(neighbourCases.ATTACKS).join(', ')}; all by default
--attackers of ${Object.keys(neighbourCases.TEAMS).join(', ')}: those of the case "neighbours"; all by default, with --quick all but many
--seconds of each attack of the case "neighbours": 10 by default, 30 with --full, 3 with --quick
--earlier a folder with a built checkout of an earlier commit, for the case "earlier", which is measured by its name alone
--minutes of endurance, which is measured by its name alone: more than 5, 30 by default
--snapshots  a folder for heap snapshots of Bundoc, after the fifth minute of endurance and at its end: they hold keys, and make what
          the process takes larger from there on
--help    this text`;

const options = readOptions();
const { quick, full } = options;
const only = namesOf(options.only);
const root = fileURLToPath(new URL('..', import.meta.url));
const directory = mkdtempSync(join(options.dir, 'bundoc-bench-'));
const report = new Report(directory, quick ? 'quick' : full ? 'full' : 'all cases');

/** @type {{ stop(): Promise<void> }[]} */
const started = [];
let interrupted = false;
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM']))
  process.once(signal, () => {
    interrupted = true;
    void cleanUp().then(() => process.exit(1));
  });

try {
  say('build');
  execFileSync('npx', ['tsc', '-b'], { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  await main();
  report.write();
} catch (error) {
  if (!interrupted) throw error;
} finally {
  await cleanUp();
}

/** Parses the command line; exits when it asks for help or is invalid. */
function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        quick: { type: 'boolean', default: false },
        full: { type: 'boolean', default: false },
        dir: { type: 'string', default: tmpdir() },
        only: { type: 'string', default: '' },
        tenants: { type: 'string', default: '1,64,600,10000' },
        engines: { type: 'string', default: ENGINES.join(',') },
        parts: { type: 'string', default: '' },
        attacks: { type: 'string', default: '' },
        attackers: { type: 'string', default: '' },
        seconds: { type: 'string', default: '' },
        earlier: { type: 'string', default: '' },
        minutes: { type: 'string', default: '30' },
        profiles: { type: 'string', default: '' },
        snapshots: { type: 'string', default: '' },
        help: { type: 'boolean', default: false },
      },
    });
    for (const name of namesOf(values.only))
      if (!CASES.some(([known]) => known === name)) throw new Error(`there is no case "${name}"`);
    for (const name of namesOf(values.parts))
      if (!PARTS.includes(name)) throw new Error(`there is no part "${name}"`);
    for (const name of namesOf(values.engines))
      if (!ENGINES.includes(name)) throw new Error(`there is no engine "${name}"`);
    for (const name of namesOf(values.attacks))
      if (!Object.hasOwn(neighbourCases.ATTACKS, name)) throw new Error(`there is no attack "${name}"`);
    for (const name of namesOf(values.attackers))
      if (!Object.hasOwn(neighbourCases.TEAMS, name)) throw new Error(`there are no attackers "${name}"`);
    for (const count of namesOf(values.tenants))
      if (!/^[1-9]\d{0,5}$/.test(count)) throw new Error(`"${count}" is not a number of tenants`);
    if (!values.help) return values;
    console.log(USAGE);
    process.exit(0);
  } catch (error) {
    console.error(`${error.message}\n\n${USAGE}`);
    process.exit(2);
  }
}

/** Creates the folder and returns its absolute path, because the services have another working directory. */
function folderOf(option) {
  if (option !== '') mkdirSync(option, { recursive: true });
  return option === '' ? '' : resolve(option);
}

function namesOf(option) {
  return option.split(',').filter((name) => name !== '');
}

async function tenantsOfEngines(bench) {
  for (const engine of bench.engines) await TENANTS_OF[engine](bench);
}

async function main() {
  const installation = await keep(Installation.start(directory));
  const bundoc = await keep(installation.startBundoc());
  const bare = await keep(startPeer('bare'));
  const { token } = installation;
  const bench = {
    report,
    directory,
    keep,
    quick,
    full,
    installation,
    bundoc,
    bare,
    token,
    tenants: namesOf(options.tenants).map(Number),
    engines: namesOf(options.engines),
    parts: namesOf(options.parts),
    attacks: namesOf(options.attacks),
    attackers: namesOf(options.attackers),
    seconds: options.seconds === '' ? undefined : Number(options.seconds),
    earlier: options.earlier === '' ? '' : resolve(options.earlier),
    minutes: Number(options.minutes),
    profiles: folderOf(options.profiles),
    snapshots: folderOf(options.snapshots),
  };
  await fill(bench, bundoc, 'p1-0', HOT_DOCUMENTS, documentOf(1_024));

  for (const [name, measure, when] of CASES) if (isWanted(name, when)) await measure(bench);
}

function isWanted(name, when) {
  if (only.length > 0) return only.includes(name);
  return when === 'full' ? full : when === 'all cases' ? !quick : when === 'always';
}

async function keep(promise) {
  const service = await promise;
  if (interrupted) {
    await service?.stop();
    throw new Error('the benchmark was interrupted');
  }
  if (service !== undefined) started.push(service);
  return service;
}

async function cleanUp() {
  for (const service of started.splice(0).reverse()) await service.stop();
  rmSync(directory, { recursive: true, force: true });
}
