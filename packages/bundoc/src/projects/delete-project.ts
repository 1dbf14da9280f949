import type { Pool } from '@bundoc/shared/admission/pool';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import type { DeletionMark } from '@bundoc/shared/contract/deletion-mark';
import { type DestroyReceipt, dekNameOf, projectOfDek } from '@bundoc/shared/contract/keys';
import type { DeletedProject } from '@bundoc/shared/contract/projects';
import type { DeletionIntent, UnfinishedDeletion } from '@bundoc/shared/contract/storages';
import { formatError } from '@bundoc/shared/logs/error-line';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { currentShare, shareIn } from '@bundoc/shared/shares/share-key';
import type { KeyCache } from '../crypto/key-cache.ts';
import type { DeletableProjects, Projects } from '../engine/projects/projects.ts';
import { KeyRefused, type KeyShredder } from '../kms/port.ts';
import type { InstanceManager } from './instance-manager.ts';

export interface ProjectDeletionOptions {
  readonly projects: DeletableProjects & Pick<Projects, 'open'>;
  readonly instances: Pick<InstanceManager, 'exclusively'>;
  readonly keys: Pick<KeyCache, 'evict'>;
  readonly service: KeyShredder;
  /** Makes sure that unanswered calls can no longer take effect. */
  readonly settleDoubt: () => Promise<void>;
  /** Followers of a project's changes. */
  readonly feed: { end(project: string): void };
  readonly clock: Clock;
  readonly logger: Logger;
  /** The places of deletions that clients ask for. */
  readonly share: Pool;
}

/**
 * Deletes projects: first it destroys the key, so that every copy of the content is unreadable, then it
 * removes the content.
 *
 * BunKMS records the intent first. From then on it does not release the key. After an interruption,
 * unfinished deletions are read from BunKMS, never from the storage. The key is destroyed when the last user
 * has left. Then the content is removed, a marker is written, and BunKMS records the end. Every step is
 * idempotent.
 */
export class ProjectDeletion {
  readonly #options: ProjectDeletionOptions;
  /** Whether BunKMS may have an unfinished deletion. */
  #isDue = false;
  #isResuming = false;
  /** Whether an intent was sent and not answered. */
  #isInDoubt = false;
  /** The last logged failure. */
  #logged = '';

  constructor(options: ProjectDeletionOptions) {
    this.#options = options;
  }

  /**
   * Deletes a project, or returns the earlier deletion. Once resolved, only the marker is left.
   *
   * @throws AppError `project_not_found`; `kms_unavailable`, also when this service may not destroy keys;
   *   `key_missing`, `project_elsewhere`, `project_unclaimed`; `rate_limited`, `overloaded` when the share of
   *   the caller or of all is in use: nothing has changed then. `kms_unavailable` after the intent was
   *   recorded, `overloaded` while requests do not end, and those of the storage: the deletion is finished in
   *   the background.
   */
  async delete(project: string): Promise<DeletedProject> {
    const { instances, share } = this.#options;
    const mark = await share.run(shareIn(project), () =>
      instances.exclusively(project, (close) => this.#delete(project, close)),
    );
    const { finishedAt, since, receipt } = mark;
    return { project, deleted_at: finishedAt ?? since, ...defined({ key: receipt }) };
  }

  /** Called after a start and on events from BunKMS: a deletion may be unfinished. */
  requestCheck(): void {
    this.#isDue = true;
    void this.resume();
  }

  /**
   * Finishes deletions that this process or another began. Never rejects. Call it every few seconds; it does
   * nothing if none is unfinished.
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
    if (!(await projects.exists(project))) return this.#findEarlierDeletion(project);
    const intent = await this.#intend(project);
    this.#isDue = true;
    await this.#outOfUse(project, close);
    // The key was already destroyed, so the rest of the project is removed as well.
    if (intent === undefined)
      return await this.#remove(project, this.#now(), undefined, await projects.deletionOf(project));
    const receipt = await later(this.#shred(intent));
    // Another node has finished it in the meantime.
    if (receipt === undefined) return await this.#findEarlierDeletion(project);
    return await this.#remove(project, intent.intended_at, receipt);
  }

  /**
   * The earlier deletion of a project without content. BunKMS confirms its marker; otherwise the marker is
   * set aside.
   */
  async #findEarlierDeletion(project: string): Promise<DeletionMark> {
    const { projects, keys } = this.#options;
    const mark = await projects.deletionOf(project);
    // The cached key may be from before the deletion.
    keys.evict(project);
    try {
      if (mark !== undefined) await projects.open(project);
    } catch (error) {
      if (mark !== undefined && hasCode(error, 'project_destroyed')) return mark;
      throw error;
    }
    throw new AppError('project_not_found');
  }

  /** @returns undefined when the key was already destroyed. */
  async #intend(project: string) {
    try {
      return await this.#recordIntent(dekNameOf(project));
    } catch (error) {
      if (hasCode(error, 'project_destroyed')) return undefined;
      // An unknown key may come back from BunKMS's backup and open copies again, so it does not count as
      // destroyed.
      if (hasCode(error, 'key_not_found')) throw new AppError('key_missing', { cause: error });
      if (hasCode(error, 'key_unheld')) throw new AppError('project_unclaimed', { cause: error });
      throw error;
    }
  }

  /**
   * Sends the intent, and repeats it after a lost answer. Before that, it makes sure that the first one
   * cannot take effect later, after an administrator has taken the deletion back.
   */
  async #recordIntent(name: string): Promise<DeletionIntent> {
    const { service } = this.#options;
    for (let tries = 0; ; tries++) {
      try {
        return await service.intendDeletion(name, currentShare().subject);
      } catch (error) {
        // The first one may have been recorded.
        if (tries > 0 && hasCode(error, 'rate_limited', 'overloaded')) throw unanswered(error);
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
    // A key of this storage that does not belong to a project has no content here.
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
      // An administrator has taken the deletion back, or the key was changed in another way, such as a
      // rewrap. Then BunKMS names a later receipt.
      this.#isDue = true;
    }
  }

  /** @returns undefined when the deletion was already finished, or the key was destroyed in another way. */
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

  /**
   * Removes the content after the key was destroyed. @param receipt of its destruction; undefined when it was
   * destroyed in another way.
   */
  async #remove(
    project: string,
    since: string,
    receipt?: DestroyReceipt,
    former?: DeletionMark,
  ): Promise<DeletionMark> {
    const { projects, keys, service, logger } = this.#options;
    const now = this.#now();
    const mark: DeletionMark = former ?? {
      deleted: project,
      format: 1,
      since,
      ...defined({ receipt }),
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
    // The client logs that itself, and before the storage is confirmed it is no fault.
    if (project === undefined && hasCode(error, 'kms_unavailable')) return;
    const line = `${project} ${formatError(error)}`;
    if (line !== this.#logged) this.#options.logger.warn({ err: error, project }, event);
    this.#logged = line;
  }

  #now(): string {
    return new Date(this.#options.clock.now()).toISOString();
  }
}

function unanswered(cause: AppError): AppError {
  return new AppError('kms_unavailable', { cause, retryAfterS: cause.retryAfterS ?? 1 });
}

/** Adds to the error of a step that the deletion is recorded and continues. */
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
