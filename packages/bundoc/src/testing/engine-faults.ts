import type { EngineProject } from './engine-project.ts';

/** What fails on the disk of a data folder. */
export class EngineFaults {
  /** Projects whose folders fail. */
  readonly folders = new Set<EngineProject>();
  /** Operations of the log that fail yet, and whether before or after they take effect. */
  log: { writes: number; readonly when: 'before' | 'after' } | undefined;
  /** Whether anything but the folders of projects has failed since the process began. */
  isUnsure = false;

  /** A new process begins, on folders that fail still. */
  boot(): void {
    this.log = undefined;
    this.isUnsure = false;
  }

  end(): void {
    this.folders.clear();
    this.log = undefined;
  }

  /** Whether an operation of the disk fails, before or after it takes effect. */
  of(operation: string): 'before' | 'after' | undefined {
    for (const { directory } of this.folders)
      if (operation.endsWith(` ${directory}`) || operation.includes(` ${directory}/`)) return 'before';
    const { log } = this;
    if (log === undefined || !/^(write|fdatasync) \/log\//.test(operation)) return undefined;
    this.isUnsure = true;
    if (--log.writes === 0) this.log = undefined;
    return log.when;
  }
}
