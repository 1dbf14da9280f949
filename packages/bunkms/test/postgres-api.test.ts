import { needs } from '@bundoc/shared/testing/programs';
import { describe } from 'vitest';
import { usePostgresStorage } from './support/use-postgres-storage.ts';

/** The unchanged tests of the service, on the PostgreSQL store. */
describe('BunKMS on PostgreSQL:', needs('postgresql'), () => {
  usePostgresStorage();

  for (const [name, load] of Object.entries({
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
  }))
    describe(name, async () => {
      await load();
    });
});
