import type { FramePlace, Place } from '../log/layout.ts';
import type { LogView } from '../log/log-view.ts';
import type { PartReader } from '../log/parts.ts';
import type { SealedPart } from '../log/sealed-part.ts';
import type { LogOfProjects } from './project-loader.ts';

/** The log as a command reads it, without a running service. */
export class ViewedLog implements LogOfProjects {
  readonly storageId: Buffer;
  readonly #view: LogView;

  constructor(storageId: Buffer, view: LogView) {
    this.storageId = storageId;
    this.#view = view;
  }

  /** The damage, a sentence for each place. */
  get damage(): readonly string[] {
    return this.#view.damage;
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
