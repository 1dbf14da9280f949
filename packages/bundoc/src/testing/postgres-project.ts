import { createSecretKey, randomBytes } from 'node:crypto';
import { createLogger } from '@bundoc/shared/logs/logger';
import { parseAddress } from '@bundoc/shared/postgres/address';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { type DekVersion, ProjectCipher } from '../crypto/project-cipher.ts';
import type { Quota } from '../engine/commit/quota.ts';
import { SEAL_LIMITS, type SealLimits } from '../engine/port/seal-budget.ts';
import { GroupCommitter } from '../engine/postgres/commit/group-commit.ts';
import type { CommitChannel } from '../engine/postgres/commit-polls.ts';
import { Database, type DatabaseOptions } from '../engine/postgres/database/database.ts';
import { PostgresStore, type PostgresStoreOptions } from '../engine/postgres/postgres-store.ts';
import { whyGone } from '../engine/postgres/projects/postgres-projects.ts';
import { SharedReads } from '../engine/postgres/reads/shared-reads.ts';
import { insertProjectRows, raiseKeyVersion } from '../engine/postgres/rows/project-rows.ts';
import { SnapshotConnections } from '../engine/postgres/snapshots/snapshot-connections.ts';

/** How a test connects to its database. */
function testDatabaseOptions(url: string, options: Partial<DatabaseOptions> = {}): DatabaseOptions {
  const address = parseAddress(url);
  if (address === undefined) throw new Error(`no URL of a database: ${url}`);
  return {
    address,
    variable: 'BUNDOC_STORAGE',
    connectionsMax: 5,
    connectTimeoutMs: PATIENT_MS / 2,
    statementTimeoutMs: PATIENT_MS / 2,
    idleInTransactionTimeoutMs: PATIENT_MS / 2,
    isPooled: false,
    logger: createLogger({ service: 'bundoc', level: 'silent' }),
    ...options,
  };
}

/** Connections to a test's database. */
export function openTestDatabase(url: string, options: Partial<DatabaseOptions> = {}): Database {
  return new Database(testDatabaseOptions(url, options));
}

/** No news from other nodes. */
export const NO_NEWS: CommitChannel = { watch: () => undefined, unwatch: () => undefined };

/** A project of the PostgreSQL engine in a test, and what opens it. The schema is there already. */
export class PostgresProject {
  readonly #nameKey = createSecretKey(randomBytes(32));
  #versions: [DekVersion, ...DekVersion[]] = [{ version: 1, dek: createSecretKey(randomBytes(32)) }];
  readonly project: string;
  readonly damaged: string[] = [];
  readonly failures: unknown[] = [];
  readonly rotationsDue: number[] = [];
  readonly clock: Clock;
  readonly sealLimits: PostgresStoreOptions['sealLimits'];
  readonly quota: Quota | undefined;
  readonly orderSizes: PostgresStoreOptions['orderSizes'];

  constructor(
    project: string,
    options: {
      readonly clock?: Clock;
      /** Without `reserve`, every commit that seals writes the count. */
      readonly sealLimits?: Pick<SealLimits, 'rotateAt' | 'max'> & Partial<SealLimits>;
      readonly quota?: Quota;
      readonly orderSizes?: PostgresStoreOptions['orderSizes'];
    } = {},
  ) {
    this.project = project;
    this.quota = options.quota;
    this.orderSizes = options.orderSizes;
    this.clock = options.clock ?? systemClock;
    this.sealLimits = options.sealLimits === undefined ? SEAL_LIMITS : { reserve: 0, ...options.sealLimits };
  }

  get cipher(): ProjectCipher {
    return new ProjectCipher(this.project, this.#versions, this.#nameKey);
  }

  async create(database: Database): Promise<void> {
    await database.transaction('', async (transaction) => {
      await insertProjectRows(transaction, this.project, 1);
      return true;
    });
  }

  /**
   * Makes a new version of the DEK the current one; the former stay live. What is open before does not know
   * it.
   */
  async rotate(database: Database): Promise<void> {
    const version = this.#versions[0].version + 1;
    this.#versions = [{ version, dek: createSecretKey(randomBytes(32)) }, ...this.#versions];
    await database.transaction('', async (transaction) => {
      await raiseKeyVersion(transaction, this.project, version);
      return true;
    });
  }

  /** Only the current version is left. */
  forgetFormerVersions(): void {
    this.#versions = [this.#versions[0]];
  }

  /** @param node what its projects share; by default this is the only one. */
  open(
    database: Database,
    news: CommitChannel = NO_NEWS,
    node: Partial<Pick<PostgresStoreOptions, 'reads' | 'committer' | 'snapshots'>> = {},
  ): Promise<PostgresStore> {
    return new PostgresStore({
      project: this.project,
      database,
      reads: node.reads ?? new SharedReads(database),
      snapshots: node.snapshots ?? new SnapshotConnections({ database, clock: this.clock }),
      cipher: this.cipher,
      clock: this.clock,
      sealLimits: this.sealLimits,
      quota: this.quota,
      ...(this.orderSizes !== undefined && { orderSizes: this.orderSizes }),
      news,
      committer: node.committer ?? new GroupCommitter({ database, clock: this.clock }),
      onIntegrityError: (name) => this.damaged.push(name),
      onFailure: (error) => this.failures.push(error),
      whyGone: () => whyGone({ database, clock: this.clock }, this.project),
      onRotationDue: (version) => this.rotationsDue.push(version),
    }).begin();
  }
}
