import type { Logger } from '@bundoc/shared/runtime/logger';
import type { DefinedStore } from '../collections/defined-store.ts';
import type { InstanceManager } from './instance-manager.ts';
import type { Need } from './open-projects.ts';
import type { SpreadRotations } from './spread-rotations.ts';

/** Of the open projects, those whose documents are re-sealed at a time; one in any case. */
const RESEALING_SHARE = 0.01;
/** Projects that a step works on at a time: one that takes long does not delay the others of its run. */
const TOGETHER = 4;
/** Open projects that one run looks through for expired documents. */
export const SWEPT_MAX = 50;
/** How long a project whose key was rotated counts with them until it is used, and so re-sealed, runs. */
const WAITS_FOR_USE_RUNS = 5;

export interface ProjectUpkeepOptions {
  readonly instances: Pick<InstanceManager, 'eachInNeed' | 'projectsInNeed' | 'instanceIfOpen' | 'size'>;
  readonly logger: Logger;
  /** Keys that are to be rotated. */
  readonly rotations?: Pick<SpreadRotations, 'run'> | undefined;
  /** Documents of one project that are re-sealed after a rotation, each time. */
  readonly resealsMax: number;
  /**
   * Answers for many projects at once what definitions and indexes each has, as `definitionsState` of their
   * stores. Without it, the definitions of every project that others write to are read each time.
   */
  readonly statesOf?: ((projects: readonly string[]) => Promise<ReadonlyMap<string, string>>) | undefined;
}

/**
 * What open projects need besides requests: documents re-sealed whose project's key was rotated, what other
 * processes defined collections to be taken up, expired documents removed.
 */
export class ProjectUpkeep {
  readonly #options: ProjectUpkeepOptions;
  /** Steps that are under way. */
  readonly #running = new Set<Need>();
  /** The states in which definitions were taken up of which some do not open, by project. */
  #damagedAs: ReadonlyMap<string, string> = new Map();
  /**
   * Projects whose documents are being re-sealed; they stay until they need it no more, or nothing more can
   * be done.
   */
  readonly #resealing = new Set<string>();
  /**
   * Projects whose keys were rotated and that were not used since, with the runs for which they are still
   * waited for.
   */
  readonly #rotated = new Map<string, number>();
  /** The last project whose turn began. */
  #lastResealed: string | undefined;
  /** The last project that was looked through for expired documents. */
  #lastSwept: string | undefined;

  constructor(options: ProjectUpkeepOptions) {
    this.#options = options;
  }

  /**
   * Does some of it for every open project that needs it. Never rejects. To be called every second or so,
   * which bounds the rate and the delay. A step that is under way is not begun again, and no other step waits
   * for it.
   */
  async run(): Promise<void> {
    await Promise.all([
      this.#unlessRunning('reseal', () => this.#resealSome()),
      this.#unlessRunning('definitions', () => this.#takeUpDefinitions()),
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
   * Re-seals documents in a hundredth of the open projects at a time, and has as many keys rotated as that
   * leaves room for: after a take-over all projects are due at once.
   */
  async #resealSome(): Promise<void> {
    const { instances, rotations } = this.#options;
    const max = Math.max(1, Math.floor(instances.size * RESEALING_SHARE));
    const inNeed = instances.projectsInNeed('reseal');
    const needy = new Set(inNeed);
    for (const project of this.#resealing) if (!needy.has(project)) this.#resealing.delete(project);
    // A project that cannot be re-sealed does not delay the others.
    for (const project of behind(this.#lastResealed, inNeed)) {
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
    for (const project of (await rotations?.run(room)) ?? []) this.#rotated.set(project, WAITS_FOR_USE_RUNS);
  }

  /**
   * Removes expired documents of some projects. They take turns, so that the work of one run is bounded,
   * however many there are.
   */
  async #sweepSome(): Promise<void> {
    const inNeed = this.#options.instances.projectsInNeed('expiry');
    const projects = behind(this.#lastSwept, inNeed).slice(0, SWEPT_MAX);
    this.#lastSwept = projects.at(-1);
    await this.#forEach(
      'expiry',
      'expired documents could not be removed',
      (project, store) => this.#removeExpired(project, store),
      projects,
    );
  }

  /** Looks at no project but those that need it. */
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

  /** Reads the definitions of projects that have changed since, or whose indexes are not whole yet. */
  async #takeUpDefinitions(): Promise<void> {
    const { instances, logger, statesOf } = this.#options;
    const projects = instances.projectsInNeed('definitions');
    if (projects.length === 0) return;
    const damagedAs = new Map<string, string>();
    try {
      const states = await statesOf?.(projects);
      const isTaken = (project: string) => {
        const state = states?.get(project);
        const store = instances.instanceIfOpen(project)?.store;
        if (state === undefined || store === undefined || store.indexes?.isSettled === false) return false;
        if (store.definitionsState === state) return true;
        if (store.definitionsState !== undefined || this.#damagedAs.get(project) !== state) return false;
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
    } catch (error) {
      logger.warn({ err: error }, 'failed to ask which projects have changed');
    }
    this.#damagedAs = damagedAs;
  }

  /** @returns whether there is more to be done at once. */
  async #reseal(project: string, store: DefinedStore): Promise<boolean> {
    if (store.pendingReencryption === 0) return false;
    const resealed = await store.reseal(this.#options.resealsMax);
    if (resealed > 0)
      this.#options.logger.info(
        { project, resealed, left: store.pendingReencryption },
        'documents were sealed under the new key version',
      );
    return resealed > 0 && store.pendingReencryption > 0;
  }

  async #removeExpired(project: string, store: DefinedStore): Promise<void> {
    const removed = await store.expired.goRound();
    if (removed > 0) this.#options.logger.debug({ project, removed }, 'expired documents were removed');
  }
}

/** All of them, in turn: those behind the last one first. */
function behind(last: string | undefined, projects: readonly string[]): readonly string[] {
  const from = last === undefined ? 0 : projects.indexOf(last) + 1;
  return [...projects.slice(from), ...projects.slice(0, from)];
}
