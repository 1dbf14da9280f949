import { randomBytes } from 'node:crypto';
import { runs } from '@bundoc/shared/testing/long';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HostileRun, type RunTotals } from './support/hostile-run.ts';
import { type KmsDatabase, PostgresKmsDatabase, SqliteKmsDatabase } from './support/kms-database.ts';

/**
 * The counterpart of `hostile-storage.test.ts`: its operator has BunKMS's database, not Bundoc's storage.
 *
 * BunKMS promises what `HostileRun` judges. It does not promise the following, so nothing here judges it:
 *
 * 1. An end (a revocation, a disabled or destroyed key) whose record was away when the running BunKMS
 *    started. It is judged again after the acts are undone. If Bundoc has stored the receipt of a lost
 *    record, its next request must seal BunKMS.
 * 2. A record of a release that was taken out of the middle of the chain after the answer. Then BunKMS is
 *    sealed, or `bunkms audit verify` finds the chain broken. An end of the chain that is cut off must seal a
 *    BunKMS that ran before the cut.
 * 3. After a start with a shortened chain that BunKMS then continued, two ends of the chain exist. The
 *    operator decides for the first one and restarts BunKMS. Receipts of the other one would rightly seal it.
 * 4. A BunKMS that started without the installation or the KEK which it needs, or did not start, unseals by a
 *    restart only.
 * 5. A row of a key or token that a trigger kept from changing stays damaged, unless undoing brings it back.
 *    BunKMS then refuses that key or token.
 * 6. Claims, presences, scrubs, the probe, and the table of migrations: no key depends on them.
 */

/** The time of all sequences on one store; their number depends on the machine. */
const RUN_MS = runs(2_000, 1_800_000);
/** The fewest sequences on one store, on a machine that is too busy for more in the time. */
const SEQUENCES_MIN = 2;
/** As many are enough to see both a release and a sealed BunKMS. */
const SEQUENCES_FOR_BOTH = 50;
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
  for (const seed of seedsFor(store, () => goesOn(totals, begin))) {
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

function goesOn(totals: RunTotals, begin: number): boolean {
  const isTimeLeft = Date.now() - begin < RUN_MS;
  return isTimeLeft || totals.sequences < SEQUENCES_MIN || isOneSided(totals);
}

/** Whether the test has shown nothing yet. Nearly every sequence seals BunKMS. */
function isOneSided({ sequences, released, sealed }: RunTotals): boolean {
  return sequences < SEQUENCES_FOR_BOTH && (released === 0 || sealed === 0);
}

function* seedsFor(store: string, goesOn: () => boolean): Generator<number> {
  if (SEED !== undefined) {
    yield Number(SEED);
    return;
  }
  const first = randomBytes(4).readUInt32BE();
  process.stdout.write(`hostile database on ${store}: seeds from ${first}\n`);
  for (let at = 0; goesOn(); at++) yield (first + at) >>> 0;
}
