import { setTimeout as sleep } from 'node:timers/promises';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { KeyCache } from '../crypto/key-cache.ts';
import type { ProjectInstance } from './project-instance.ts';

/** How long the users of a project have to leave it. */
const WAIT_FOR_USERS_MS = 4_500;

/** Projects that were retired and are not closed yet. A project is not reopened before it is closed. */
export class ClosingProjects {
  readonly #keys: Pick<KeyCache, 'has' | 'release'>;
  readonly #logger: Logger;
  /** Resolves at the end of each. */
  readonly #ends = new Map<string, PromiseWithResolvers<void>>();
  /** Rejects when no time is left to prepare projects for closing. */
  readonly #outOfTime = Promise.withResolvers<never>();

  constructor(keys: Pick<KeyCache, 'has' | 'release'>, logger: Logger) {
    this.#keys = keys;
    this.#logger = logger;
    this.#outOfTime.promise.catch(() => undefined);
  }

  /** Resolves when the project is closed; undefined when it is not closing. */
  end(project: string): Promise<void> | undefined {
    return this.#ends.get(project)?.promise;
  }

  /** Resolves when the project is not closing. @throws AppError `overloaded` when that takes too long. */
  async endSoon(project: string): Promise<void> {
    await Promise.race([this.end(project), sleep(WAIT_FOR_USERS_MS, undefined, { ref: false })]);
    if (this.#ends.has(project))
      throw new AppError('overloaded', {
        detail: 'requests to the project are in progress',
        retryAfterS: 2,
      });
  }

  /** Resolves when all are closed. After `ms`, their preparations are cut short. */
  async within(ms: number): Promise<void> {
    const timer = setTimeout(() => this.#outOfTime.reject(new Error('no time was left for it')), ms);
    await Promise.all([...this.#ends.values()].map(({ promise }) => promise));
    clearTimeout(timer);
  }

  /** Adds a retired project, which closes when its last user has left. */
  add({ project }: ProjectInstance): void {
    this.#ends.set(project, Promise.withResolvers());
  }

  /** Closes a project whose last user has left. */
  async close(instance: ProjectInstance): Promise<void> {
    const { project } = instance;
    const end = this.#ends.get(project);
    try {
      await this.#closeStore(instance);
    } catch (error) {
      this.#logger.error({ err: error, project }, 'a project did not close cleanly');
    }
    this.#keys.release(project);
    this.#ends.delete(project);
    end?.resolve();
  }

  /** While its key is usable, a store may prepare for closing. */
  async #closeStore(instance: ProjectInstance): Promise<void> {
    const { project, store } = instance;
    try {
      if (!store.failed && instance.hasKeys(this.#keys))
        await Promise.race([store.prepareClose(), this.#outOfTime.promise]);
    } catch (error) {
      this.#logger.warn({ err: error, project }, 'closed a project before its preparation had ended');
    }
    await store[Symbol.asyncDispose]();
  }
}
