import { forEachConcurrently } from '@bundoc/shared/runtime/concurrently';
import type { SealedEntry } from '../log/frame.ts';
import type { BaseQueue } from './base-queue.ts';
import type { BaseReader } from './base-reader.ts';
import { KnownHandles } from './known-handles.ts';
import type { ObjectBuilder } from './object.ts';

/** Catalogs that a start reads at the same time. */
const READS_AT_ONCE = 16;

/** Follows which projects have changed, and which have arrived: their bases are queued. */
export class ProjectChanges {
  readonly #reader: BaseReader;
  readonly #handles: KnownHandles;
  readonly #takeChanged: () => Promise<readonly string[]>;
  readonly #changed = new Set<string>();

  /**
   * @param takeChanged the projects that changed since the last call.
   * @param partsBytes a project gets a base after so many bytes of parts.
   */
  constructor(
    reader: BaseReader,
    bases: BaseQueue,
    takeChanged: () => Promise<readonly string[]>,
    partsBytes: number,
  ) {
    this.#reader = reader;
    this.#handles = new KnownHandles((project) => bases.arrive(project), partsBytes);
    this.#takeChanged = takeChanged;
  }

  /**
   * Finds what became of the folders while nothing was shipped: each may have changed.
   *
   * @param arrivals handles whose bases are missing.
   */
  async begin(arrivals: readonly string[]): Promise<void> {
    const projects = await this.#reader.projects();
    await forEachConcurrently(projects, READS_AT_ONCE, async (project) => {
      this.#changed.add(project);
      const handle = (await this.#reader.head(project))?.handle;
      if (handle !== undefined) this.#handles.found(project, handle);
    });
    for (const handle of arrivals) this.#handles.arrived(handle);
  }

  /** Whether changed projects are left. */
  get isMore(): boolean {
    return this.#changed.size > 0;
  }

  /** A new chain begins with a round, which reads all folders. */
  clear(): void {
    this.#changed.clear();
    this.#handles.forgetBases();
  }

  /** Adds the small files of projects that changed to an object of at most so many bytes. */
  async take(builder: ObjectBuilder, bytesMax: number): Promise<void> {
    await this.look();
    for (const project of this.#changed) {
      if (builder.bytes >= bytesMax) break;
      await this.#takeOne(project, builder);
    }
  }

  /** Learns which projects have changed until now. */
  async look(): Promise<void> {
    for (const project of await this.#takeChanged()) this.#changed.add(project);
  }

  /** Adds the small files of changed projects that have one of these parts. */
  async takeOf(parts: readonly SealedEntry[], builder: ObjectBuilder): Promise<void> {
    for (const { handle } of parts) {
      const project = this.#handles.projectOf(handle);
      if (project !== undefined && this.#changed.has(project)) await this.#takeOne(project, builder);
    }
  }

  async #takeOne(project: string, builder: ObjectBuilder): Promise<void> {
    const names = await this.#reader.names(project);
    const handle = (await this.#reader.head(project))?.handle;
    if (names.length === 0 || handle === undefined) this.#handles.gone(project);
    if (names.length === 0) builder.add({ kind: 'gone', project });
    else if (handle === undefined || !this.#handles.changed(project, handle))
      builder.add(await this.#reader.smallFiles(project));
    this.#changed.delete(project);
  }

  /** These handles have their bases. */
  based(handles: readonly string[], arrivals: Set<string>): void {
    for (const handle of handles) {
      arrivals.delete(handle);
      this.#handles.based(handle);
    }
  }

  /** A part was shipped. The first one of a handle shows that its project has arrived. */
  partShipped({ handle, kind, bytes, previous }: SealedEntry, arrivals: Set<string>): void {
    if (kind === 'gone') {
      arrivals.delete(handle);
      return;
    }
    this.#handles.shipped(handle, bytes);
    if (previous === undefined && !this.#handles.isBased(handle)) {
      arrivals.add(handle);
      this.#handles.arrived(handle);
    }
  }
}
