import { once } from 'node:events';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { Position, ProjectStore } from '../engine/port/port.ts';

/** Time that a project which others may write to stays closed while someone waits for its changes. */
const REOPEN_MS = 1_000;

/** Projects that are open, or can be opened. */
export interface OpenableProjects {
  /** A project that is open. This does not count as a use. */
  instanceIfOpen(project: string): { readonly store: Pick<ProjectStore, 'waitForChange'> } | undefined;
  acquire(project: string, mode: 'existing'): Promise<Disposable | undefined>;
}

/**
 * Waits for changes of projects. A waiter neither keeps a project open nor prevents closing. While the
 * project is closed, opening it ends the wait.
 */
export class ProjectChangeWaiter {
  readonly #projects: OpenableProjects;
  readonly #isShared: boolean;
  /** Callbacks by project, called when it is opened or closed. */
  readonly #waiting = new Map<string, Set<() => void>>();

  /**
   * @param isShared whether other processes write to the same storage, so that a project which is closed here
   *   may change.
   */
  constructor(projects: OpenableProjects, isShared: boolean) {
    this.#projects = projects;
    this.#isShared = isShared;
  }

  /** Call it when the project was opened or retired. */
  turned(project: string): void {
    for (const wake of this.#waiting.get(project) ?? []) wake();
  }

  /**
   * Waits for a commit after `after` in a project.
   *
   * @returns false when the signal was aborted.
   * @throws AppError `project_not_found`, and errors of opening a project, where others write and it cannot
   *   be reopened.
   */
  async wait(project: string, after: Position, signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted) {
      const store = this.#projects.instanceIfOpen(project)?.store;
      using turn = this.#nextTurn(project, signal);
      if (store !== undefined) {
        if ((await store.waitForChange(after, turn.signal)) !== undefined) return true;
      } else if (this.#isShared) {
        const timer = setTimeout(turn.end, REOPEN_MS);
        await once(turn.signal, 'abort');
        clearTimeout(timer);
        if (!signal.aborted) await this.#open(project);
      } else await once(turn.signal, 'abort');
    }
    return false;
  }

  /** A signal that aborts when the project is opened or retired, or when `signal` aborts. */
  #nextTurn(project: string, signal: AbortSignal) {
    const turn = new AbortController();
    const end = () => turn.abort();
    const waiting = this.#waiting.get(project) ?? new Set();
    this.#waiting.set(project, waiting.add(end));
    signal.addEventListener('abort', end);
    return {
      signal: turn.signal,
      end,
      [Symbol.dispose]: () => {
        signal.removeEventListener('abort', end);
        waiting.delete(end);
        if (waiting.size === 0) this.#waiting.delete(project);
      },
    };
  }

  async #open(project: string): Promise<void> {
    if (this.#projects.instanceIfOpen(project) !== undefined) return;
    using lease = await this.#projects.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
  }
}
