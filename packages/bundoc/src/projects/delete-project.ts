import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import type { DeletionMark } from '@bundoc/shared/contract/deletion-mark';
import { type DestroyReceipt, dekNameOf, projectOfDek } from '@bundoc/shared/contract/keys';
import type { DeletedProject } from '@bundoc/shared/contract/projects';
import type { DeletionIntent, UnfinishedDeletion } from '@bundoc/shared/contract/storages';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { lineOf } from '@bundoc/shared/runtime/error-line';
import type { Logger } from '@bundoc/shared/runtime/logger';
import type { KeyCache } from '../crypto/key-cache.ts';
import type { DeletableProjects, Projects } from '../engine/projects.ts';
import { KeyRefused, type KeyShredder } from '../kms/port.ts';
import type { InstanceManager } from './instance-manager.ts';

export interface ProjectDeletionOptions {
  readonly projects: DeletableProjects & Pick<Projects, 'open'>;
  readonly instances: Pick<InstanceManager, 'exclusively'>;
  readonly keys: Pick<KeyCache, 'evict'>;
  readonly service: KeyShredder;
  /** Makes what was sent and not answered have no effect any more. */
  readonly settleDoubt: () => Promise<void>;
  /** Those that follow the changes of a project. */
  readonly feed: { end(project: string): void };
  readonly clock: Clock;
  readonly logger: Logger;
}

/**
 * Deletes projects: their key is destroyed, so that every copy of what it sealed is unreadable, and then
 * their content.
 *
 * BunKMS records the intent first. From then on it releases the key no more, and the intent says what is left
 * to do after whatever cuts the deletion short: what is unfinished is asked of BunKMS, and never read from
 * the storage. The key is destroyed when the last user has left. Then the content goes, a mark is left, and
 * BunKMS hears that the deletion is over. Doing a step again is harmless.
 *
 * One class, because a deletion that begins and one that is resumed take the same steps in the same order.
 */
export class ProjectDeletion {
  readonly #options: ProjectDeletionOptions;
  /** Whether BunKMS may know of a deletion that is not finished. */
  #isDue = false;
  #isResuming = false;
  /** Whether an intent was sent and not answered. */
  #isInDoubt = false;
  /** The last failure that was logged. */
  #logged = '';

  constructor(options: ProjectDeletionOptions) {
    this.#options = options;
  }

  /**
   * Deletes a project, or tells what became of it. Once resolved, nothing but the mark is left.
   *
   * @throws AppError `project_not_found`; `kms_unavailable`, also when this service may not shred keys;
   * `key_missing`, `project_elsewhere`, `project_unclaimed`: nothing has changed then. `kms_unavailable` once
   * the intent is on record, `overloaded` while requests do not end, and those of the storage: it is finished
   * in the background.
   */
  async delete(project: string): Promise<DeletedProject> {
    const mark = await this.#options.instances.exclusively(project, (close) => this.#delete(project, close));
    const { finishedAt, since, receipt } = mark;
    return { project, deleted_at: finishedAt ?? since, ...(receipt === undefined ? {} : { key: receipt }) };
  }

  /** A deletion may be unfinished: after a start, and when BunKMS says so. */
  look(): void {
    this.#isDue = true;
    void this.resume();
  }

  /**
   * Finishes what was begun, by this process or another. Never rejects; to be called every few seconds, and
   * does nothing while nothing is unfinished.
   */
  async resume(): Promise<void> {
    if (this.#isResuming || !this.#isDue) return;
    this.#isResuming = true;
    this.#isDue = false;
    try {
      await this.#settleDoubt();
      for (const unfinished of await this.#options.service.unfinishedDeletions())
        await this.#finishLater(unfinished);
      if (!this.#isDue) this.#logged = '';
    } catch (error) {
      this.#failed(error, undefined, 'BunKMS could not be asked for unfinished deletions');
    }
    this.#isResuming = false;
  }

  async #delete(project: string, close: () => Promise<void>): Promise<DeletionMark> {
    const { projects } = this.#options;
    if (!(await projects.exists(project))) return this.#formerOf(project);
    const intent = await this.#intend(project);
    this.#isDue = true;
    await this.#outOfUse(project, close);
    // Without an intent, the key was destroyed before: what is left of the project goes all the same.
    if (intent === undefined)
      return await this.#remove(project, this.#now(), undefined, await projects.deletionOf(project));
    const receipt = await later(this.#shred(intent));
    // Another node has finished it meanwhile.
    if (receipt === undefined) return await this.#formerOf(project);
    return await this.#remove(project, intent.intended_at, receipt);
  }

  /** What became of a project of which nothing is here. BunKMS confirms it, or the mark is set aside. */
  async #formerOf(project: string): Promise<DeletionMark> {
    const { projects, keys } = this.#options;
    const mark = await projects.deletionOf(project);
    // Nothing that was known of its key before.
    keys.evict(project);
    try {
      if (mark !== undefined) await projects.open(project);
    } catch (error) {
      if (mark !== undefined && hasCode(error, 'project_destroyed')) return mark;
      throw error;
    }
    throw new AppError('project_not_found');
  }

  /** @returns undefined when the key was destroyed before. */
  async #intend(project: string) {
    try {
      return await this.#intendSurely(dekNameOf(project));
    } catch (error) {
      if (hasCode(error, 'project_destroyed')) return undefined;
      // A key that BunKMS does not know may come back with its backup, and open copies then: that is no
      // destruction.
      if (hasCode(error, 'key_not_found')) throw new AppError('key_missing', { cause: error });
      if (hasCode(error, 'key_unheld')) throw new AppError('project_unclaimed', { cause: error });
      throw error;
    }
  }

  /**
   * Sends the intent, and once more when the first was not answered: then that one cannot land late any more,
   * behind an administrator's restore.
   */
  async #intendSurely(name: string): Promise<DeletionIntent> {
    const { service } = this.#options;
    for (let tries = 0; ; tries++) {
      try {
        return await service.intendDeletion(name);
      } catch (error) {
        const isAnswered = !hasCode(error, 'kms_unavailable') || error.cause instanceof KeyRefused;
        if (isAnswered) throw error;
        this.#isDue = true;
        this.#isInDoubt = true;
        if (tries > 0) throw error;
        await this.#settleDoubt();
      }
    }
  }

  async #settleDoubt(): Promise<void> {
    if (!this.#isInDoubt) return;
    await this.#options.settleDoubt();
    this.#isInDoubt = false;
  }

  async #finishLater(unfinished: UnfinishedDeletion): Promise<void> {
    const { instances } = this.#options;
    const project = projectOfDek(unfinished.name);
    // A key of this storage that is none of a project has no content here.
    if (project === undefined) return;
    try {
      await instances.exclusively(project, (close) => this.#finish(project, unfinished, close));
    } catch (error) {
      this.#isDue = true;
      this.#failed(error, project, 'the deletion of a project could not be finished yet');
    }
  }

  async #finish(project: string, unfinished: UnfinishedDeletion, close: () => Promise<void>): Promise<void> {
    await this.#outOfUse(project, close);
    try {
      const receipt = await this.#shred(unfinished);
      if (receipt !== undefined) await this.#remove(project, unfinished.intended_at, receipt);
    } catch (error) {
      if (!hasCode(error, 'precondition_failed')) throw error;
      // An administrator has taken it back, or the key was changed otherwise, as by a new wrapping. Then
      // BunKMS names a later receipt.
      this.#isDue = true;
    }
  }

  /** @returns undefined when the deletion was finished before, or the key was destroyed otherwise. */
  async #shred({ name, receipt }: DeletionIntent): Promise<DestroyReceipt | undefined> {
    try {
      return await this.#options.service.shredKey(name, receipt);
    } catch (error) {
      if (hasCode(error, 'project_destroyed')) return undefined;
      throw error;
    }
  }

  async #outOfUse(project: string, close: () => Promise<void>): Promise<void> {
    const { keys, feed } = this.#options;
    keys.evict(project);
    feed.end(project);
    await close();
    keys.evict(project);
  }

  /** The key is destroyed. @param receipt of its shredding; undefined when it was destroyed otherwise. */
  async #remove(
    project: string,
    since: string,
    receipt?: DestroyReceipt,
    former?: DeletionMark,
  ): Promise<DeletionMark> {
    const { projects, keys, service, logger } = this.#options;
    const now = this.#now();
    const mark: DeletionMark = former ?? {
      ...{ deleted: project, format: 1, since },
      ...(receipt === undefined ? {} : { receipt }),
      keyDestroyedAt: receipt?.destroyed_at ?? now,
      finishedAt: now,
    };
    keys.evict(project);
    await projects.remove(project, mark);
    if (receipt !== undefined) await later(service.contentRemoved(dekNameOf(project)));
    logger.info({ project, kekIds: receipt?.kek_ids }, 'a project was deleted');
    return mark;
  }

  #failed(error: unknown, project: string | undefined, event: string): void {
    this.#isDue = true;
    // The client says so itself, and before the storage is confirmed, nothing is wrong.
    if (project === undefined && hasCode(error, 'kms_unavailable')) return;
    const line = `${project} ${lineOf(error)}`;
    if (line !== this.#logged) this.#options.logger.warn({ err: error, project }, event);
    this.#logged = line;
  }

  #now(): string {
    return new Date(this.#options.clock.now()).toISOString();
  }
}

/** Says of a step of BunKMS's that the deletion is on record and goes on. */
async function later<T>(step: Promise<T>): Promise<T> {
  try {
    return await step;
  } catch (error) {
    const isChanged = hasCode(error, 'precondition_failed');
    if (!isChanged && !hasCode(error, 'kms_unavailable')) throw error;
    throw new AppError('kms_unavailable', {
      cause: error,
      retryAfterS: error.retryAfterS ?? 1,
      detail: isChanged
        ? 'the key was changed during the deletion. Unless an administrator took the deletion back, it is finished in the background'
        : 'the deletion is on record, and is finished in the background',
    });
  }
}
