import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { defineConfig } from 'vitest/config';
import { LONG } from './packages/shared/src/testing/long.ts';
import { needs } from './packages/shared/src/testing/programs.ts';
import { byProcess, quickUnits, UNITS } from './scripts/lib/test-files.mjs';
import { LongestFirst } from './test/support/longest-first.ts';
import { ON_POSTGRES } from './test/support/postgres-runner.ts';

// What Node compiles of the sources is kept for all processes and threads of tests. Without it each strips
// the types of hundreds of files, by WebAssembly code: V8 can crash when threads end while that is compiled.
process.env['NODE_COMPILE_CACHE'] ??= join(import.meta.dirname, 'node_modules', '.cache', 'compiled');

/** Vitest must run the workspace's sources, never a stale `dist`. */
const conditions = ['@bundoc/source', 'node', 'development|production'];
const shared = { resolve: { conditions }, ssr: { resolve: { conditions } } };

/**
 * Bounds for what hangs, no measure of speed: a machine that is busy, or whose disk stalls, fails no test by
 * that.
 */
const patient = { testTimeout: 400_000, hookTimeout: 400_000, expect: { poll: { timeout: 60_000 } } };

/**
 * Vitest's own number leaves a core to itself, which of two is half the machine. Tests that need servers and
 * processes wait for them more than they compute, and those with containers for builds of images.
 */
const cores = availableParallelism();
const computing = { maxWorkers: cores };
const waiting = { maxWorkers: cores + 3 };

/**
 * Tests of the API, which know nothing of where documents are stored: they run on files, and on PostgreSQL
 * once more. Those of `test/` that are not in the list: `postgres-*` and `bundoc-move` have servers of their
 * own; `openapi-fuzz` takes a minute, and looks for refusals that nobody described, which are made before a
 * storage is asked; `bundoc-cli`, `disk-full`, `isolation` and `kill-loop` are about files and their engine,
 * whose counterparts for rows are in `packages/bundoc/test/postgres-*` and the test of the cluster; `cors`,
 * `key-in-heap`, `memory-exposure`, `npm-start*`, `refused-start` and `tls` are about processes and
 * connections, and ask nothing of a storage; `bundoc-data`, `completion` and `doctor` are about commands that
 * work through the services, or without them; `proxies` is about what stands before Bundoc;
 * `hostile-kms-database` is about the store of BunKMS.
 */
const API = [
  'access',
  'backup',
  'backup-all',
  'bad-input',
  'batch',
  'changes',
  'client',
  'client-tour',
  'collections',
  'customer-keys',
  'cut-chain',
  'deletion-shares',
  'events',
  'forged-storage',
  'generation',
  'hostile-storage',
  'kek-fetch',
  'kek-rotation',
  'key-state',
  'lists',
  'lost-projects',
  'new-machine',
  'one-state',
  'open-by-hand',
  'openapi',
  'outage',
  'patch',
  'processor-time',
  'projects',
  'query',
  'query-writes',
  'quota',
  'recovery',
  'rotation',
  'secrets',
  'take-over',
  'token-renewal',
  'transfer',
  'update',
  'workflow',
];
/**
 * Of these, the suites that run on PostgreSQL with LONG_TESTS=1 only. They are about refusals before a
 * storage is asked (`access`, `bad-input`, `processor-time`), about the client and its commands (`client`,
 * `client-tour`, `transfer`), or about keys, tokens and BunKMS: of the storage they read and write single
 * documents, as all others do. What they leave in it, `packages/bundoc/test/postgres-*` tests in rows, and the
 * answers of `one-state` as well.
 */
const API_IN_LONG: readonly string[] = [
  'access',
  'bad-input',
  'client',
  'client-tour',
  'cut-chain',
  'events',
  'kek-fetch',
  'kek-rotation',
  'one-state',
  'outage',
  'processor-time',
  'take-over',
  'token-renewal',
  'transfer',
];
/**
 * Of these, the suites that know every way to read and write documents. They run once more on either engine
 * with other projects that take turns with theirs, of which one is open at a time: each request finds its
 * project closed. Without LONG_TESTS=1, the suites of what a project keeps while it is closed: its feed and
 * its indexes.
 */
const BETWEEN_OTHERS = LONG ? ['batch', 'changes', 'lists', 'patch', 'query'] : ['changes', 'query'];
const betweenOthers = BETWEEN_OTHERS.map((name) => `test/${name}.test.ts`);
const onPostgres = API.filter((name) => LONG || !API_IN_LONG.includes(name)).map(
  (name) => `test/${name}.test.ts`,
);

const RESTORED = 'test/support/restored.ts';
const REUSED_THREADS = 'packages/shared/src/testing/reused-threads.ts';
const TEMPORARY_FOLDER = 'test/support/temporary-folder.ts';
/** Tests of running services. After each of them, nothing is held of what requests share. */
const api = {
  ...patient,
  ...waiting,
  globalSetup: [TEMPORARY_FOLDER],
  setupFiles: [RESTORED, 'test/support/in-memory.ts', 'test/support/holds.ts', REUSED_THREADS],
  sequence: { groupOrder: 1 },
};
const postgres = {
  globalSetup: [TEMPORARY_FOLDER, 'test/support/postgres-engine.ts'],
  runner: './test/support/postgres-runner.ts',
};

/** They wait for builds and starts of images, so they run beside the tests of services. */
const containers = { ...patient, hookTimeout: 600_000 };

/** Two projects of one kind of tests: files that share processes, and files that run alone. */
function projectsOf(name: string, include: readonly string[], options: object) {
  const { together, alone } = byProcess(import.meta.dirname, include);
  return [
    { ...shared, test: { ...options, name, include: together, isolate: false } },
    { ...shared, test: { ...options, name: `${name}-alone`, include: alone } },
  ];
}

const unitFiles = process.env['QUICK_TESTS'] === '1' ? quickUnits(import.meta.dirname) : UNITS;

export default defineConfig({
  ...shared,
  test: {
    // What a test prints is shown if it fails: its seed, and the logs of its services.
    silent: 'passed-only',
    reporters: ['./scripts/stage-reporter.mjs', './scripts/count-reporter.mjs'],
    sequence: { sequencer: LongestFirst },
    tags: [{ name: ON_POSTGRES, ...needs('postgresql') }],
    projects: [
      ...projectsOf('unit', unitFiles, {
        ...patient,
        ...computing,
        setupFiles: [RESTORED, REUSED_THREADS],
        sequence: { groupOrder: 0 },
      }),
      ...projectsOf('integration', ['packages/*/test/**/*.test.ts', 'test/*.test.ts'], api),
      ...projectsOf('postgres', onPostgres, { ...api, ...postgres }),
      ...projectsOf('between-others', betweenOthers, { ...api, provide: { otherProjects: 500 } }),
      ...projectsOf('postgres-between-others', betweenOthers, {
        ...api,
        ...postgres,
        provide: { otherProjects: 500 },
      }),
      {
        ...shared,
        test: {
          name: 'containers',
          include: ['test/containers/**/*.test.ts'],
          ...containers,
          ...waiting,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
