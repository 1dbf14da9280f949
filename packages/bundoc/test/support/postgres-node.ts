import { createLogger } from '@bundoc/shared/logs/logger';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { KeyCache } from '../../src/crypto/key-cache.ts';
import { SEAL_LIMITS } from '../../src/engine/port/seal-budget.ts';
import { GroupCommitter } from '../../src/engine/postgres/commit/group-commit.ts';
import type { Database } from '../../src/engine/postgres/database/database.ts';
import { PostgresStore } from '../../src/engine/postgres/postgres-store.ts';
import { PostgresProjects, whyGone } from '../../src/engine/postgres/projects/postgres-projects.ts';
import { SharedReads } from '../../src/engine/postgres/reads/shared-reads.ts';
import { SharedStates } from '../../src/engine/postgres/reads/shared-states.ts';
import { SnapshotConnections } from '../../src/engine/postgres/snapshots/snapshot-connections.ts';
import { InstanceManager } from '../../src/projects/instance-manager.ts';
import { ProjectUpkeep } from '../../src/projects/project-upkeep.ts';
import type { FakeKeyService } from '../../src/testing/fake-key-service.ts';
import { NO_NEWS } from '../../src/testing/postgres-project.ts';
import { put, ref } from '../../src/testing/writes.ts';

/** The projects of a node on PostgreSQL, and its statements outside transactions. */
export class PostgresNode {
  readonly asked: string[] = [];
  readonly damaged: string[] = [];
  /** Called after a project was looked up. */
  afterRead: () => Promise<void> = async () => undefined;
  readonly instances: InstanceManager;
  readonly upkeep: ProjectUpkeep;

  constructor(pool: Database, service: FakeKeyService, clock: Clock = systemClock) {
    const database: Database = Object.create(pool, {
      query: {
        value: async (...args: Parameters<Database['query']>) => {
          this.asked.push(args[0].name);
          const rows = await pool.query(...args);
          if (args[0].name.startsWith('bundoc-read-project')) await this.afterRead();
          return rows;
        },
      },
      transaction: {
        value: (...args: Parameters<Database['transaction']>) => {
          this.asked.push('transaction');
          return pool.transaction(...args);
        },
      },
      run: { value: pool.run.bind(pool) },
    });
    const logger = createLogger({ service: 'bundoc', level: 'silent' });
    const reads = new SharedReads(database);
    const snapshots = new SnapshotConnections({ database, clock });
    const states = new SharedStates(database);
    const committer = new GroupCommitter({ database, clock });
    const keys = new KeyCache({ keys: service.held, clock, ttlMs: 900_000 });
    const projects = new PostgresProjects({
      database,
      keys,
      clock,
      storage: service.storage,
      settle: async () => undefined,
    });
    this.instances = new InstanceManager({
      projects,
      keys,
      clock,
      logger,
      isShared: true,
      openStore: (project, { cipher, head }) =>
        new PostgresStore({
          project,
          database,
          reads,
          snapshots,
          states,
          committer,
          cipher,
          clock,
          news: NO_NEWS,
          sealLimits: SEAL_LIMITS,
          onIntegrityError: (name) => this.damaged.push(name),
          onFailure: () => undefined,
          whyGone: () => whyGone({ database, clock }, project),
          onRotationDue: () => undefined,
        }).begin(head),
    });
    const statesOf = (some: readonly string[]) => states.of(some);
    this.upkeep = new ProjectUpkeep({ instances: this.instances, logger, resealsMax: 5, statesOf });
  }

  async write(project: string, id = 'd', text = '{}'): Promise<void> {
    using lease = await this.instances.acquire(project, 'create');
    await lease.store.commit([put(id, text)]);
  }

  async read(project: string, id = 'd'): Promise<boolean> {
    using lease = await this.instances.acquire(project, 'existing');
    return (await lease?.store.get(ref(id))) !== undefined;
  }

  /** @returns the statements of `action`. */
  async statementsOf(action: () => Promise<unknown>): Promise<string[]> {
    this.asked.length = 0;
    await action();
    return [...this.asked];
  }

  async close(project: string): Promise<void> {
    await this.instances.exclusively(project, (close) => close());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.instances[Symbol.asyncDispose]();
  }
}
