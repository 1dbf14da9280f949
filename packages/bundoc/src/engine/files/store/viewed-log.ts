import type { FramePlace, Place } from '../log/layout.ts';
import type { LogView } from '../log/log-view.ts';
import type { PartReader } from '../log/parts.ts';
import type { SealedPart } from '../log/sealed-part.ts';
import type { LogOfProjects } from './project-loader.ts';

/**
 * The log as a command reads it, without a running service.
 *
 * One class, because it has the members of its port.
 */
export class ViewedLog implements LogOfProjects {
  readonly storageId: Buffer;
  readonly #view: LogView;
  readonly #births: ReadonlyMap<string, Birth>;

  private constructor(storageId: Buffer, view: LogView, births: ReadonlyMap<string, Birth>) {
    this.storageId = storageId;
    this.#view = view;
    this.#births = births;
  }

  static async of(storageId: Buffer, view: LogView): Promise<ViewedLog> {
    const births = new Map<string, Birth>();
    for await (const { project, handle, projectFile } of view.births())
      births.set(project, { handle, projectFile });
    return new ViewedLog(storageId, view, births);
  }

  /** The damage, a sentence for each place. */
  get damage(): readonly string[] {
    return this.#view.damage;
  }

  /** Projects with a birth in the log, and their first `project.json`. */
  get births(): ReadonlyMap<string, Birth> {
    return this.#births;
  }

  /** Handles with parts in the segments or in the folder of stuck parts. */
  get handles(): ReadonlySet<string> {
    return new Set([...this.#view.handles, ...this.#view.stuck.handles]);
  }

  get firstLive(): number {
    return this.#view.firstLive;
  }

  /** Nothing is carried while a command reads the log. */
  hasCarried(): boolean {
    return false;
  }

  /** {@link LogView.partsOf} */
  partsOf(handles: ReadonlySet<string>): AsyncGenerator<SealedPart> {
    return this.#view.partsOf(handles);
  }

  handleOf(project: string): string | undefined {
    return this.#births.get(project)?.handle;
  }

  newest(handle: string): Place | undefined {
    return this.#view.newest(handle);
  }

  isDoubtful(handle: string, covered: FramePlace | undefined): boolean {
    return this.#view.isDoubtful(handle, covered);
  }

  reader(): PartReader {
    return this.#view.reader();
  }

  stuckOf(handle: string): Promise<readonly Buffer[]> {
    return this.#view.stuck.read(handle);
  }
}

export interface Birth {
  readonly handle: string;
  readonly projectFile: Buffer;
}
