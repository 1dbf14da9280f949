import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ProjectInstance } from './project-instance.ts';
import { SegmentedLru } from './segmented-lru.ts';
import { SlotPool } from './slot-pool.ts';

/** What every open project takes at least: keys, ciphers, and the store itself. */
export const PROJECT_BYTES = 32_768;
/** What it takes beyond that counts in steps: most commits change nothing of it. */
const CHARGE_STEP_BYTES = 4_096;
/** Sweeps within which each open project is looked at, and how many are looked at in each sweep at least. */
const SWEEPS_A_ROUND = 60;
const LOOKS_A_SWEEP_MIN = 16;

/** What open projects may be in need of, beside requests. */
export type Need = 'reseal' | 'definitions' | 'expiry';

/**
 * The projects that are open: the memory that they take, in which order they make room, and what they need.
 *
 * One class, because a project that opens, grows or closes changes the memory, the order and the needs at
 * once.
 */
export class OpenProjects {
  readonly #instances = new Map<string, ProjectInstance>();
  /** In which order they make room. */
  readonly #order: SegmentedLru<ProjectInstance>;
  readonly #inNeed: Readonly<Record<Need, Set<ProjectInstance>>> = {
    reseal: new Set(),
    definitions: new Set(),
    expiry: new Set(),
  };
  /** Where the next sweep goes on, and how many projects it looks at. */
  #round: Iterator<ProjectInstance> = this.#instances.values();
  #looks = 0;
  #sweeps = 0;
  /** One for each project that is open or being opened. */
  readonly slots: SlotPool;

  /** @param retire takes a project out of use, to make room for another one. */
  constructor(bytesMax: number, retire: (instance: ProjectInstance) => void, clock?: Clock) {
    this.#order = new SegmentedLru(bytesMax);
    const evict = () => {
      const unused = this.#order.next(({ users }) => users === 0);
      if (unused !== undefined) retire(unused);
      return unused !== undefined;
    };
    this.slots = new SlotPool({ bytesMax, slotBytesMin: PROJECT_BYTES, evict, ...(clock && { clock }) });
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
   * Once between two sweeps: with a thousand projects, to move it up takes as long as to find its document.
   */
  used(instance: ProjectInstance): void {
    if (instance.countedInSweep === this.#sweeps) return;
    instance.countedInSweep = this.#sweeps;
    this.#order.used(instance.project);
  }

  /** Has an open project count with the bytes that it takes now. */
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

  /** Begins a sweep. @returns the open projects to look at, so that all are within a round of sweeps. */
  *sweep(): Generator<ProjectInstance> {
    this.#sweeps++;
    // Not fewer as projects are closed: the round is to end in time.
    this.#looks = Math.max(this.#looks, LOOKS_A_SWEEP_MIN, Math.ceil(this.size / SWEEPS_A_ROUND));
    for (let left = Math.min(this.#looks, this.size); left > 0; left--) {
      const instance = this.#nextInRound();
      if (instance === undefined) return;
      yield instance;
    }
  }

  #nextInRound(): ProjectInstance | undefined {
    const next = this.#round.next();
    if (next.done !== true) return next.value;
    this.#round = this.#instances.values();
    this.#looks = 0;
    return this.#round.next().value;
  }
}
