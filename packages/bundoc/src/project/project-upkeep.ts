import type { Logger } from '@bundoc/shared/logger';
import type { DefinedStore } from '../storage/collections/defined-store.ts';
import type { InstanceManager } from './instance-manager.ts';

export interface ProjectUpkeepOptions {
  readonly instances: Pick<InstanceManager, 'eachUsable'>;
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
   * Does some of it for every open project. Never rejects; to be called every second or so, which bounds the rate and how late any of it is. Does
   * nothing while an earlier run goes on.
   */
  async run(): Promise<void> {
    if (this.#isRunning) return;
    this.#isRunning = true;
    const { instances, logger } = this.#options;
    for (const { project, store } of instances.eachUsable())
      await this.#reseal(project, store).catch((error: unknown) => {
        logger.warn({ err: error, project }, 'documents could not be sealed anew');
      });
    for (const { project, store } of instances.eachUsable())
      await this.#keepDefinitions(project, store).catch((error: unknown) => {
        logger.warn({ err: error, project }, 'definitions could not be kept');
      });
    this.#isRunning = false;
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

  async #keepDefinitions(project: string, store: DefinedStore): Promise<void> {
    if (store.isShared) await store.load();
    const removed = await store.expired.goRound();
    if (removed > 0) this.#options.logger.debug({ project, removed }, 'expired documents were removed');
  }
}
