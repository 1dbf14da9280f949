/**
 * The projects of handles, and whose base is missing. A project that arrives has a handle whose first part
 * the log has; the part may be shipped before the project's folder is found, or after.
 */
export class KnownHandles {
  readonly #handleOf = new Map<string, string>();
  readonly #projectOf = new Map<string, string>();
  /** Handles whose base was queued by this process; true once it has ended. */
  readonly #bases = new Map<string, boolean>();
  /** Bytes of parts since the last base, as far as this process has shipped them. */
  readonly #bytesSince = new Map<string, number>();
  readonly #arrive: (project: string) => void;
  readonly #partsBytes: number;

  /**
   * @param arrive queues the base of a project.
   * @param partsBytes a base is queued after so many bytes of parts.
   */
  constructor(arrive: (project: string) => void, partsBytes: number) {
    this.#arrive = arrive;
    this.#partsBytes = partsBytes;
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
    this.#bytesSince.delete(handle);
  }

  based(handle: string): void {
    this.#bases.set(handle, true);
    this.#bytesSince.delete(handle);
  }

  /** A part was shipped. Opening a restored project takes memory for all parts that its base lacks. */
  shipped(handle: string, bytes: number): void {
    const project = this.#projectOf.get(handle);
    // A base follows when its folder is found; that of a deleted project is never found.
    if (project === undefined) return;
    const since = (this.#bytesSince.get(handle) ?? 0) + bytes;
    this.#bytesSince.set(handle, since);
    if (since < this.#partsBytes) return;
    this.#bytesSince.delete(handle);
    this.#arrive(project);
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
