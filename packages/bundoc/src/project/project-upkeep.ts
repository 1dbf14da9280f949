import type { Logger } from '@bundoc/shared/logger';
import type { DefinedStore } from '../storage/collections/defined-store.ts';
import type { InstanceManager, Need } from './instance-manager.ts';

export interface ProjectUpkeepOptions {
  readonly instances: Pick<InstanceManager, 'eachInNeed'>;
  readonly logger: Logger;
  /** Documents of one project that are sealed anew after a rotation, each time. */
  readonly resealsMax: number;
}

/**
 * What open projects need besides requests: documents sealed anew whose project's key was rotated, what other processes defined collections to be
 * taken up, expired documents removed.
 */
export class ProjectUpkeep {
  readonly #options: ProjectUpkeepOptions;
  #isRunning = false;

  constructor(options: ProjectUpkeepOptions) {
    this.#options = options;
  }

  /**
   * Does some of it for every open project that needs it. Never rejects; to be called every second or so, which bounds the rate and how late any of it is. Does
   * nothing while an earlier run goes on.
   */
  async run(): Promise<void> {
    if (this.#isRunning) return;
    this.#isRunning = true;
    await this.#forEach('reseal', 'documents could not be sealed anew', (project, store) =>
      this.#reseal(project, store),
    );
    await this.#forEach('definitions', 'definitions could not be kept', (_project, store) => store.load());
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
