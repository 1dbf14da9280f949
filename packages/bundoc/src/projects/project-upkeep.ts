import type { Logger } from '@bundoc/shared/logs/logger';
import type { DefinedStore } from '../collections/defined-store.ts';
import type { InstanceManager } from './instance-manager.ts';
import type { Need } from './open-projects.ts';
import type { SpreadRotations } from './spread-rotations.ts';

/** Fraction of the open projects whose documents are re-sealed at a time; at least one. */
const RESEALING_SHARE = 0.01;
/** Projects that a step works on concurrently, so that a slow one does not delay the others of its run. */
const TOGETHER = 4;
/** Maximum number of open projects that one run sweeps for expired documents. */
export const SWEPT_MAX = 50;
/**
 * Maximum number of open projects that one statement asks about. Preparing it and comparing its answers takes
 * about 2 ms of the event loop.
 */
export const ASKED_TOGETHER = 500;
/** Number of runs for which a project with a rotated key counts, until it is used and therefore re-sealed. */
const ROTATED_RUNS_MAX = 5;

export interface ProjectUpkeepOptions {
  readonly instances: Pick<InstanceManager, 'eachInNeed' | 'projectsInNeed' | 'instanceIfOpen' | 'size'>;
  readonly logger: Logger;
  /** Rotations to run. */
  readonly rotations?: Pick<SpreadRotations, 'run'> | undefined;
  /** Documents of one project that one run re-seals after a rotation. */
  readonly resealsMax: number;
  /**
   * Returns the definitions and indexes of many projects at once, as `definitionsState` of their stores.
   * Without it, every run reads the definitions of each project that others write to.
   */
  readonly statesOf?: ((projects: readonly string[]) => Promise<ReadonlyMap<string, string>>) | undefined;
}

/**
 * The upkeep of open projects: it re-seals documents after a rotation, learns definitions by other processes,
 * and removes expired documents.
 */
export class ProjectUpkeep {
  readonly #options: ProjectUpkeepOptions;
  /** Running steps. */
  readonly #running = new Set<Need>();
  /** By project, the states of definitions that were learned although some are undecryptable. */
  #damagedAs: ReadonlyMap<string, string> = new Map();
  /** Projects whose documents are being re-sealed, until none is left or nothing more can be done. */
  readonly #resealing = new Set<string>();
  /** Projects with rotated keys that were not used since, and the number of runs left to wait for them. */
  readonly #rotated = new Map<string, number>();
  /** The last project whose turn began. */
  #lastResealed: string | undefined;
  /** The last project that was swept for expired documents. */
  #lastSwept: string | undefined;

  constructor(options: ProjectUpkeepOptions) {
    this.#options = options;
  }

  /**
   * Runs the upkeep of every open project that needs it. Never rejects. Call it about once a second, which
   * bounds the rate and the delay. A running step is not started again, and no other step waits for it.
   */
  async run(): Promise<void> {
    await Promise.all([
      this.#unlessRunning('reseal', () => this.#resealSome()),
      this.#unlessRunning('definitions', () => this.#reloadDefinitions()),
      this.#unlessRunning('expiry', () => this.#sweepSome()),
    ]);
  }

  async #unlessRunning(step: Need, run: () => Promise<void>): Promise<void> {
    if (this.#running.has(step)) return;
    this.#running.add(step);
    try {
      await run();
    } finally {
      this.#running.delete(step);
    }
  }

  /**
   * Re-seals documents in a hundredth of the open projects at a time, and starts as many rotations as that
   * leaves capacity for. After a take-over, all projects are due at once.
   */
  async #resealSome(): Promise<void> {
    const { instances, rotations } = this.#options;
    const max = Math.max(1, Math.floor(instances.size * RESEALING_SHARE));
    const inNeed = instances.projectsInNeed('reseal');
    const needy = new Set(inNeed);
    for (const project of this.#resealing) if (!needy.has(project)) this.#resealing.delete(project);
    // Takes turns, so that a project which cannot be re-sealed does not delay the others.
    for (const project of inTurnAfter(this.#lastResealed, inNeed)) {
      if (this.#resealing.size >= max) break;
      if (this.#resealing.has(project)) continue;
      this.#resealing.add(project);
      this.#lastResealed = project;
    }
    await this.#forEach(
      'reseal',
      'documents could not be re-sealed',
      async (project, store) => {
        this.#rotated.delete(project);
        let goesOn = false;
        try {
          goesOn = await this.#reseal(project, store);
        } finally {
          if (!goesOn) this.#resealing.delete(project);
        }
      },
      [...this.#resealing],
    );
    for (const [project, runs] of this.#rotated) {
      if (runs > 0) this.#rotated.set(project, runs - 1);
      else this.#rotated.delete(project);
    }
    const room = max - new Set([...this.#resealing, ...this.#rotated.keys()]).size;
    for (const project of (await rotations?.run(room)) ?? []) this.#rotated.set(project, ROTATED_RUNS_MAX);
  }

  /** Removes expired documents of some projects. They take turns, so that one run has bounded work. */
  async #sweepSome(): Promise<void> {
    const inNeed = this.#options.instances.projectsInNeed('expiry');
    const projects = inTurnAfter(this.#lastSwept, inNeed).slice(0, SWEPT_MAX);
    this.#lastSwept = projects.at(-1);
    await this.#forEach(
      'expiry',
      'expired documents could not be removed',
      async (project, store) => {
        const removed = await store.expired.sweepRound();
        if (removed > 0) this.#options.logger.debug({ project, removed }, 'expired documents were removed');
      },
      projects,
    );
  }

  /** Visits only projects with this need. */
  async #forEach(
    need: Need,
    problem: string,
    action: (project: string, store: DefinedStore) => Promise<void>,
    projects: readonly string[],
  ): Promise<void> {
    const { instances, logger } = this.#options;
    const left = projects.values();
    const lane = async () => {
      for (const next of left)
        for (const { project, store } of instances.eachInNeed(need, [next]))
          await action(project, store).catch((error: unknown) => {
            logger.warn({ err: error, project }, problem);
          });
    };
    await Promise.all(Array.from({ length: TOGETHER }, lane));
  }

  /** Reads the definitions of projects that have changed since, or whose indexes are not ready. */
  async #reloadDefinitions(): Promise<void> {
    const { instances, logger } = this.#options;
    const projects = instances.projectsInNeed('definitions');
    const damagedAs = new Map<string, string>();
    try {
      for (let at = 0; at < projects.length; at += ASKED_TOGETHER)
        await this.#reloadSome(projects.slice(at, at + ASKED_TOGETHER), damagedAs);
    } catch (error) {
      logger.warn({ err: error }, 'failed to ask which projects have changed');
    }
    this.#damagedAs = damagedAs;
  }

  /** @param damagedAs the state of each project that was learned although it is partly undecryptable. */
  async #reloadSome(projects: readonly string[], damagedAs: Map<string, string>): Promise<void> {
    const { instances, statesOf } = this.#options;
    const states = await statesOf?.(projects);
    const isTaken = (project: string) => {
      const state = states?.get(project);
      const store = instances.instanceIfOpen(project)?.store;
      if (state === undefined || store === undefined || store.indexes?.isSettled === false) return false;
      const known = store.definitionsState;
      if (known === state) return true;
      if (known !== undefined || this.#damagedAs.get(project) !== state) return false;
      damagedAs.set(project, state);
      return true;
    };
    const changed = projects.filter((project) => !isTaken(project));
    await this.#forEach(
      'definitions',
      'definitions could not be kept',
      async (project, store) => {
        await store.load();
        const state = states?.get(project);
        if (state !== undefined && store.definitionsState === undefined) damagedAs.set(project, state);
      },
      changed,
    );
  }

  /** @returns whether to continue immediately. */
  async #reseal(project: string, store: DefinedStore): Promise<boolean> {
    if (store.pendingReencryption === 0) return false;
    const { logger, resealsMax } = this.#options;
    const { resealed, skipped, cause, goesOn } = await store.reseal(resealsMax);
    const left = store.pendingReencryption;
    if (resealed > 0)
      logger.info({ project, resealed, left }, 'documents were sealed under the new key version');
    if (skipped > 0)
      logger.warn({ err: cause, project, skipped }, 'documents could not be re-sealed and are tried again');
    return goesOn && left > 0;
  }
}

/** All projects, starting after the last one. */
function inTurnAfter(last: string | undefined, projects: readonly string[]): readonly string[] {
  const from = last === undefined ? 0 : projects.indexOf(last) + 1;
  return [...projects.slice(from), ...projects.slice(0, from)];
}
