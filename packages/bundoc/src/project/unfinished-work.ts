import type { Logger } from '@bundoc/shared/logger';

export interface UnfinishedWorkOptions {
  /** What the log calls it. */
  readonly work: string;
  /** Projects of which former processes left some. */
  readonly find: () => Promise<readonly string[]>;
  /** Does what is left to do of a project's. Once resolved, it is finished. */
  readonly finish: (project: string) => Promise<unknown>;
  readonly logger: Logger;
}

/** Work on projects that only goes forward once it has begun: it is gone on with after whatever cut it short. */
export class UnfinishedWork {
  readonly #options: UnfinishedWorkOptions;
  /** Begun, and not known to be finished; of former processes once {@link resume} has looked. */
  readonly #projects = new Set<string>();
  #hasLooked = false;
  #isResuming = false;

  constructor(options: UnfinishedWorkOptions) {
    this.#options = options;
  }

  begun(project: string): void {
    this.#projects.add(project);
  }

  finished(project: string): void {
    this.#projects.delete(project);
  }

  /** Goes on with what was begun, by this process or by one before it. Never rejects; to be called every few seconds. */
  async resume(): Promise<void> {
    if (this.#isResuming) return;
    this.#isResuming = true;
    const { work, find, finish, logger } = this.#options;
    try {
      if (!this.#hasLooked) for (const project of await find()) this.#projects.add(project);
      this.#hasLooked = true;
    } catch (error) {
      logger.warn({ err: error, work }, 'it could not be looked for work that was cut short');
    }
    for (const project of [...this.#projects]) {
      try {
        await finish(project);
        this.#projects.delete(project);
      } catch (error) {
        logger.warn({ err: error, project, work }, 'work on a project could not be finished yet');
      }
    }
    this.#isResuming = false;
  }
}
