import type { Logger } from '@bundoc/shared/logger';
import type { DefinedStore } from '../storage/collections/defined-store.ts';
import type { InstanceManager, Need } from './instance-manager.ts';

export interface ProjectUpkeepOptions {
  readonly instances: Pick<InstanceManager, 'eachInNeed' | 'projectsInNeed'>;
  readonly logger: Logger;
  /** Documents of one project that are sealed anew after a rotation, each time. */
  readonly resealsMax: number;
  /**
   * Answers for many projects at once in which state each is: another text when anything in it may have changed.
   * Without it, the definitions of every project that others write to are read each time.
   */
  readonly statesOf?: ((projects: readonly string[]) => Promise<ReadonlyMap<string, string>>) | undefined;
}

/**
 * What open projects need besides requests: documents sealed anew whose project's key was rotated, what other processes defined collections to be
 * taken up, expired documents removed.
 */
export class ProjectUpkeep {
  readonly #options: ProjectUpkeepOptions;
  #isRunning = false;
  /** The states in which definitions were taken up, by project. */
  #taken: ReadonlyMap<string, string> = new Map();

  constructor(options: ProjectUpkeepOptions) {
    this.#options = options;
  }

  /**
   * Does some of it for every open project that needs it. Never rejects. To be called every second or so, which
   * bounds the rate and the delay. Does nothing while an earlier run is under way.
   */
  async run(): Promise<void> {
    if (this.#isRunning) return;
    this.#isRunning = true;
    await this.#forEach('reseal', 'documents could not be sealed anew', (project, store) =>
      this.#reseal(project, store),
    );
    await this.#takeUpDefinitions();
    await this.#forEach('expiry', 'expired documents could not be removed', (project, store) =>
      this.#removeExpired(project, store),
    );
    this.#isRunning = false;
  }

  /** Looks at no project but those that need it. */
  async #forEach(
    need: Need,
    problem: string,
    action: (project: string, store: DefinedStore) => Promise<void>,
  ): Promise<void> {
    const { instances, logger } = this.#options;
    for (const { project, store } of instances.eachInNeed(need))
      await action(project, store).catch((error: unknown) => {
        logger.warn({ err: error, project }, problem);
      });
  }

  /** Reads the definitions of projects that have changed since, or whose indexes are not whole yet. */
  async #takeUpDefinitions(): Promise<void> {
    const { instances, logger, statesOf } = this.#options;
    const projects = instances.projectsInNeed('definitions');
    if (projects.length === 0) return;
    const taken = new Map<string, string>();
    try {
      const states = await statesOf?.(projects);
      const isTaken = (project: string) => {
        const state = states?.get(project);
        if (state === undefined || this.#taken.get(project) !== state) return false;
        taken.set(project, state);
        return true;
      };
      const changed = projects.filter((project) => !isTaken(project));
      for (const { project, store } of instances.eachInNeed('definitions', changed)) {
        try {
          await store.load();
          const state = states?.get(project);
          if (state !== undefined && store.indexes?.isSettled !== false) taken.set(project, state);
        } catch (error) {
          logger.warn({ err: error, project }, 'definitions could not be kept');
        }
      }
    } catch (error) {
      logger.warn({ err: error }, 'it could not be asked which projects have changed');
    }
    this.#taken = taken;
  }

  async #reseal(project: string, store: DefinedStore): Promise<void> {
    if (store.toReseal === 0) return;
    const resealed = await store.reseal(this.#options.resealsMax);
    if (resealed > 0)
      this.#options.logger.info(
        { project, resealed, left: store.toReseal },
        'documents were sealed under the new key version',
      );
  }

  async #removeExpired(project: string, store: DefinedStore): Promise<void> {
    const removed = await store.expired.goRound();
    if (removed > 0) this.#options.logger.debug({ project, removed }, 'expired documents were removed');
  }
}
