import { randomBytes } from 'node:crypto';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HostileRun, type RunTotals } from './support/hostile-run.ts';
import { type KmsDatabase, PostgresKmsDatabase, SqliteKmsDatabase } from './support/kms-database.ts';

/** The time of all sequences on one store; their number depends on the machine. */
const RUN_MS = Number(
  process.env['HOSTILE_RUN_MS'] ?? (process.env['LONG_TESTS'] === '1' ? 1_800_000 : 12_000),
);
/** Repeats one sequence, with the seed that a failure names. */
const SEED = process.env['BUNDOC_HOSTILE_SEED'];

describe('BunKMS on SQLite', () => {
  it(
    'keeps its promises to an operator of its database who has no KEK, or is sealed',
    { timeout: RUN_MS + 400_000 },
    () => runSequences('SQLite', async () => new SqliteKmsDatabase()),
  );
});

describe('BunKMS on PostgreSQL', needs('postgresql'), () => {
  let server: PostgresServer;
  let made = 0;
  beforeAll(async () => {
    server = await PostgresServer.start();
  });
  afterAll(() => server[Symbol.asyncDispose]());

  it(
    'keeps its promises to an operator of its database who has no KEK, or is sealed',
    { timeout: RUN_MS + 400_000 },
    () => runSequences('PostgreSQL', () => PostgresKmsDatabase.create(server, `kms_${made++}`)),
  );
});

async function runSequences(store: string, open: () => Promise<KmsDatabase>): Promise<void> {
  const totals: RunTotals = {
    sequences: 0,
    peaceful: 0,
    acts: 0,
    refused: 0,
    released: 0,
    sealed: 0,
    restarts: 0,
    forks: 0,
    unknown: 0,
    holes: 0,
    slowestMs: 0,
    codes: {},
  };
  const begin = Date.now();
  for (const seed of seedsFor(store, begin)) {
    await using run = await HostileRun.start(seed, open, totals);
    try {
      await run.all();
    } catch (error) {
      throw new Error(`seed ${seed} (BUNDOC_HOSTILE_SEED=${seed}) on ${store}:\n${run.told.join('\n')}`, {
        cause: error,
      });
    }
    totals.sequences++;
  }
  process.stdout.write(`hostile database on ${store}: ${JSON.stringify(totals)}\n`);
  // Without both outcomes, the test would show nothing.
  if (SEED === undefined) expect([totals.released > 0, totals.sealed > 0]).toEqual([true, true]);
}

function* seedsFor(store: string, begin: number): Generator<number> {
  if (SEED !== undefined) {
    yield Number(SEED);
    return;
  }
  const first = randomBytes(4).readUInt32BE();
  process.stdout.write(`hostile database on ${store}: seeds from ${first}\n`);
  for (let at = 0; Date.now() - begin < RUN_MS; at++) yield (first + at) >>> 0;
}
