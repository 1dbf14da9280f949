import type { Accounts } from '@bundoc/shared/admission/account';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ProjectInstance } from './project-instance.ts';
import { SegmentedLru } from './segmented-lru.ts';
import { SlotPool } from './slot-pool.ts';

/** Minimum memory of an open project: keys, ciphers, and the store. */
export const PROJECT_BYTES = 32_768;
/** Memory beyond that is counted in steps, because most commits hardly change it. */
const CHARGE_STEP_BYTES = 4_096;
/** Number of sweeps that visit all open projects once, and minimum number of visits in one sweep. */
const SWEEPS_PER_ROUND = 60;
const CHECKS_PER_SWEEP_MIN = 16;

/** The kinds of upkeep that open projects may need. */
export type Need = 'reseal' | 'definitions' | 'expiry';

/** The open projects: their memory, the order of their eviction, and their needs. */
export class OpenProjects {
  readonly #instances = new Map<string, ProjectInstance>();
  /** The order of eviction. */
  readonly #order: SegmentedLru<ProjectInstance>;
  readonly #inNeed: Readonly<Record<Need, Set<ProjectInstance>>> = {
    reseal: new Set(),
    definitions: new Set(),
    expiry: new Set(),
  };
  /** The position of the next sweep, and its number of projects. */
  #round: Iterator<ProjectInstance> = this.#instances.values();
  #checksPerSweep = 0;
  #sweeps = 0;
  /** One slot for each project that is open or being opened. */
  readonly slots: SlotPool;

  /**
   * @param retire evicts a project.
   * @param turns whose turn it is when callers wait for memory, and their clock.
   */
  constructor(
    bytesMax: number,
    retire: (instance: ProjectInstance) => void,
    turns: { readonly accounts: Accounts; readonly clock: Clock },
  ) {
    this.#order = new SegmentedLru(bytesMax);
    const evict = () => {
      const unused = this.#order.next(({ users }) => users === 0);
      if (unused !== undefined) retire(unused);
      return unused !== undefined;
    };
    this.slots = new SlotPool({ bytesMax, slotBytesMin: PROJECT_BYTES, evict, ...turns });
  }

  get size(): number {
    return this.#instances.size;
  }

  get(project: string): ProjectInstance | undefined {
    return this.#instances.get(project);
  }

  has(instance: ProjectInstance): boolean {
    return this.#instances.get(instance.project) === instance;
  }

  all(): readonly ProjectInstance[] {
    return [...this.#instances.values()];
  }

  add(instance: ProjectInstance): void {
    this.#instances.set(instance.project, instance);
    this.#order.add(instance.project, instance, instance.slot.units);
  }

  delete(instance: ProjectInstance): void {
    this.#instances.delete(instance.project);
    this.#order.delete(instance.project);
    for (const needy of Object.values(this.#inNeed)) needy.delete(instance);
    this.slots.release(instance.slot);
  }

  /**
   * Counted once between two sweeps: with a thousand projects, updating the order takes as long as finding a
   * document.
   */
  used(instance: ProjectInstance): void {
    if (instance.countedInSweep === this.#sweeps) return;
    instance.countedInSweep = this.#sweeps;
    this.#order.used(instance.project);
  }

  /** Updates the memory that an open project counts with. */
  charge(instance: ProjectInstance): void {
    const bytes =
      PROJECT_BYTES + Math.ceil(instance.store.memoryBytes / CHARGE_STEP_BYTES) * CHARGE_STEP_BYTES;
    if (bytes === instance.slot.units) return;
    this.#order.resize(instance.project, bytes);
    this.slots.resize(instance.slot, bytes);
  }

  inNeed(need: Need): ReadonlySet<ProjectInstance> {
    return this.#inNeed[need];
  }

  mayExpire(project: string): void {
    const instance = this.get(project);
    if (instance !== undefined) this.#inNeed.expiry.add(instance);
  }

  noteNeeds(instance: ProjectInstance): void {
    const { store } = instance;
    const needs: Record<Need, boolean> = {
      reseal: store.pendingReencryption > 0,
      definitions: store.isShared,
      expiry: store.mayExpire,
    };
    const isOpen = this.has(instance);
    for (const need of Object.keys(needs) as Need[]) {
      if (isOpen && needs[need]) this.#inNeed[need].add(instance);
      else this.#inNeed[need].delete(instance);
    }
  }

  /** Begins a sweep. @returns the open projects to visit, so that a round of sweeps visits all. */
  *sweep(): Generator<ProjectInstance> {
    this.#sweeps++;
    // Not reduced when projects close, so that the round ends in time.
    this.#checksPerSweep = Math.max(
      this.#checksPerSweep,
      CHECKS_PER_SWEEP_MIN,
      Math.ceil(this.size / SWEEPS_PER_ROUND),
    );
    for (let left = Math.min(this.#checksPerSweep, this.size); left > 0; left--) {
      const instance = this.#nextInRound();
      if (instance === undefined) return;
      yield instance;
    }
  }

  #nextInRound(): ProjectInstance | undefined {
    const next = this.#round.next();
    if (next.done !== true) return next.value;
    this.#round = this.#instances.values();
    this.#checksPerSweep = 0;
    return this.#round.next().value;
  }
}
