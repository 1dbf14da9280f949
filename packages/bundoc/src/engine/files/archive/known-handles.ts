/**
 * The projects of handles, and whose base is missing. A project that arrives has a handle whose first part
 * the log has; the part may be shipped before the project's folder is found, or after.
 */
export class KnownHandles {
  readonly #handleOf = new Map<string, string>();
  readonly #projectOf = new Map<string, string>();
  /** Handles whose base was queued by this process; true once it has ended. */
  readonly #bases = new Map<string, boolean>();
  readonly #arrive: (project: string) => void;

  /** @param arrive queues the base of a project. */
  constructor(arrive: (project: string) => void) {
    this.#arrive = arrive;
  }

  /** A project's folder was there at the start. */
  found(project: string, handle: string): void {
    this.#handleOf.set(project, handle);
    this.#projectOf.set(handle, project);
  }

  projectOf(handle: string): string | undefined {
    return this.#projectOf.get(handle);
  }

  /** The first part of a handle was shipped, and not its base. */
  arrived(handle: string): void {
    const project = this.#projectOf.get(handle);
    if (project !== undefined) this.#queue(project, handle);
  }

  /** A project has changed. @returns whether it arrived with this handle. */
  changed(project: string, handle: string): boolean {
    if (this.#handleOf.get(project) === handle) return false;
    this.gone(project);
    this.found(project, handle);
    this.#queue(project, handle);
    return true;
  }

  gone(project: string): void {
    const handle = this.#handleOf.get(project);
    if (handle === undefined) return;
    this.#handleOf.delete(project);
    this.#projectOf.delete(handle);
    this.#bases.delete(handle);
  }

  based(handle: string): void {
    this.#bases.set(handle, true);
  }

  isBased(handle: string): boolean {
    return this.#bases.get(handle) === true;
  }

  /** A new chain has no bases yet; a round makes them all. */
  forgetBases(): void {
    this.#bases.clear();
  }

  #queue(project: string, handle: string): void {
    if (this.#bases.has(handle)) return;
    this.#bases.set(handle, false);
    this.#arrive(project);
  }
}
