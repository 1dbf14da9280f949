import type { Clock } from '@bundoc/shared/clock';
import type { DeletionMark } from '@bundoc/shared/contract/deletion-mark';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import type { DeletedProject } from '@bundoc/shared/contract/projects';
import { AppError, hasCode } from '@bundoc/shared/errors';
import type { Logger } from '@bundoc/shared/logger';
import type { KeyDestroyer } from '../kms/port.ts';
import { newDeletionMark } from './deletion-mark.ts';
import type { InstanceManager } from './instance-manager.ts';
import type { KeyCache } from './key-cache.ts';
import type { DeletableProjects } from './projects.ts';
import { UnfinishedWork } from './unfinished-work.ts';

export interface ProjectDeletionOptions {
  readonly projects: DeletableProjects;
  readonly instances: Pick<InstanceManager, 'exclusively'>;
  readonly keys: Pick<KeyCache, 'evict'>;
  readonly service: KeyDestroyer;
  /** Those that follow the changes of a project. */
  readonly feed: { end(project: string): void };
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Deletes projects: their key is destroyed, so that every copy of what it sealed is unreadable, and then their content.
 *
 * The order matters. The mark is durable before anything is taken away; with it the project is out of use, and only forward from there.
 * The key is destroyed when the last user has left, and its receipt is durable before the content goes. Whichever step a
 * crash follows, the mark says what is left to do, and doing a step again is harmless.
 */
export class ProjectDeletion {
  readonly #options: ProjectDeletionOptions;
  readonly #unfinished: UnfinishedWork;

  constructor(options: ProjectDeletionOptions) {
    this.#options = options;
    this.#unfinished = new UnfinishedWork({
      work: 'deletion',
      find: () => options.projects.unfinishedDeletions(),
      finish: (project) => this.delete(project),
      logger: options.logger,
    });
  }

  /**
   * Deletes a project, or goes on with it, or tells what became of it. Once resolved, nothing but the mark is left.
   *
   * @throws AppError `project_not_found`; `kms_unavailable`, also when this service may not destroy keys: nothing has changed then
   * unless the deletion had begun; `key_missing`, `overloaded` while requests do not end, and those of the storage: it is gone on with later.
   */
  async delete(project: string): Promise<DeletedProject> {
    const { instances } = this.#options;
    const mark = await instances.exclusively(project, (close) => this.#delete(project, close));
    const { finishedAt, since, receipt } = mark;
    return { project, deleted_at: finishedAt ?? since, ...(receipt === undefined ? {} : { key: receipt }) };
  }

  /** Goes on with what was begun, by this process or by one before it. Never rejects; to be called every few seconds. */
  resume(): Promise<void> {
    return this.#unfinished.resume();
  }

  async #delete(project: string, close: () => Promise<void>): Promise<DeletionMark> {
    const { projects, keys, feed, logger } = this.#options;
    let mark = (await projects.deletionOf(project)) ?? (await this.#begin(project));
    if (mark.finishedAt === undefined) {
      this.#unfinished.begun(project);
      keys.evict(project);
      feed.end(project);
      await close();
      if (mark.keyDestroyedAt === undefined) {
        const receipt = await this.#destroyKey(project);
        const known = { ...mark, keyDestroyedAt: this.#now(), ...(receipt === undefined ? {} : { receipt }) };
        mark = await projects.markDeletion(project, known);
        keys.evict(project);
      }
      await projects.removeContent(project);
      mark = await projects.markDeletion(project, { ...mark, finishedAt: this.#now() });
      logger.info({ project, kekIds: mark.receipt?.kek_ids }, 'a project was deleted');
    }
    this.#unfinished.finished(project);
    return mark;
  }

  /** Whether the key may be destroyed is asked before: a deletion that cannot be finished must not begin. */
  async #begin(project: string): Promise<DeletionMark> {
    const { projects, service } = this.#options;
    if (!(await projects.exists(project))) throw new AppError('project_not_found');
    await service.requireDestroyable(dekNameOf(project));
    return projects.markDeletion(project, newDeletionMark(project, this.#now()));
  }

  /** A key that BunKMS does not know may come back with its backup, and open copies then: that is no destruction. */
  async #destroyKey(project: string): Promise<DeletionMark['receipt']> {
    try {
      return await this.#options.service.destroyKey(dekNameOf(project));
    } catch (error) {
      if (hasCode(error, 'KEY_NOT_FOUND')) throw new AppError('key_missing', { cause: error });
      throw error;
    }
  }

  #now(): string {
    return new Date(this.#options.clock.now()).toISOString();
  }
}
