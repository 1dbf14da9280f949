import { randomInt } from 'node:crypto';
import { LONG } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { sampleOf } from '@bundoc/shared/testing/sample';
import { describe } from 'vitest';
import { usePostgresStorage } from './support/use-postgres-storage.ts';

/** `API_SEED` repeats the sample that the title names. */
const SEED = Number(process.env['API_SEED'] ?? randomInt(1, 2_147_483_646));
/** In `npm test`. All suites run there on SQLite, and those of the store itself on PostgreSQL too. */
const SAMPLED = 2;

const SUITES = {
  'concurrency control': () => import('./concurrency-control.test.ts'),
  events: () => import('./events.test.ts'),
  export: () => import('./export.test.ts'),
  'holders of keys': () => import('./holders.test.ts'),
  'storages that hold keys': () => import('./holding-storages.test.ts'),
  'offers of keys': () => import('./key-offers.test.ts'),
  'deletions by holders': () => import('./deletion-intents.test.ts'),
  'every action of a holder': () => import('./holder-actions.test.ts'),
  'rotation of the KEK': () => import('./kek-rotation.test.ts'),
  'rotation of the KEK by several services': () => import('./kek-rotation-services.test.ts'),
  'retirement of a KEK': () => import('./kek-retirement.test.ts'),
  leases: () => import('./leases.test.ts'),
  lifecycle: () => import('./lifecycle.test.ts'),
  linearizability: () => import('./linearizability.test.ts'),
  'storages after a restore': () => import('./restored-storages.test.ts'),
  rotation: () => import('./rotation.test.ts'),
  sweep: () => import('./sweep.test.ts'),
  tokens: () => import('./tokens.test.ts'),
  'tokens that issue others': () => import('./issuing.test.ts'),
  'the reach of administrators': () => import('./token-reach.test.ts'),
};

const all = Object.entries(SUITES);
const chosen = LONG ? all : sampleOf(all, SAMPLED, SEED);

/** The unchanged tests of the service, on the PostgreSQL store: a sample, and all in `npm run test:long`. */
describe(`BunKMS on PostgreSQL (${LONG ? 'all suites' : `API_SEED=${SEED}`}):`, needs('postgresql'), () => {
  usePostgresStorage();

  for (const [name, load] of chosen)
    describe(name, async () => {
      await load();
    });
});
