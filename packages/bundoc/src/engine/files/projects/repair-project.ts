import { join } from 'node:path';
import { PROJECT_FILE } from '@bundoc/shared/contract/project-file';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { ProjectCipher } from '../../../crypto/project-cipher.ts';
import type { OnProgress } from '../../port/reports.ts';
import { makeDirectoryDurably, replaceFile } from '../disk/disk.ts';
import { keepCopy, type Rebuilt, rebuildStore } from '../store/rebuild.ts';
import { type ProjectPlace, readProject } from './project-reader.ts';

export interface RepairOptions {
  readonly clock: Clock;
  /** Whether to accept the loss of acknowledged commits that are damaged in the log. */
  readonly acceptLoss: boolean;
  readonly onProgress: OnProgress;
  /** Opens the engine of the data folder, runs `work`, and closes it. */
  readonly withEngine: (work: (engine: RepairEngine) => Promise<void>) => Promise<void>;
}

/** The engine's part in a repair. */
export interface RepairEngine {
  /** Registers the project's new handle in the log. */
  arrived(project: string, handle: string, cipher: ProjectCipher): Promise<void>;
  /** Drops an earlier handle of the project. */
  drop(project: string, handle: string): Promise<void>;
}

export interface RepairedProject extends Omit<Rebuilt, 'handle' | 'formerHandles'> {
  readonly project: string;
}

/**
 * Repairs a project that cannot be opened: `project.json` from its copies, the catalog from log and files.
 * Commits that the log has lost stay lost. Replaced files stay as `*.before-repair-<time>`. Nobody else may
 * use the data folder. After a crash, the project is repaired or can be repaired again.
 *
 * @throws LossNotAccepted before any change to the store; the errors of {@link readProject}, before any
 *   change.
 */
export async function repairProject(place: ProjectPlace, options: RepairOptions): Promise<RepairedProject> {
  const { project, disk, directory, tmp } = place;
  const read = await readProject(place);
  const suffix = await freeSuffix(place, options.clock);
  const done: string[] = [];
  const faults = read.findings.map(({ part, problem }) => `${part}: ${problem}`);
  if (read.from !== PROJECT_FILE) {
    await makeDirectoryDurably(disk, tmp);
    await keepCopy(place, PROJECT_FILE, suffix, done);
    await replaceFile(disk, tmp, join(directory, PROJECT_FILE), read.content);
    done.push(`restored ${PROJECT_FILE} from ${read.from}`);
  }
  const { handle, formerHandles, ...rebuilt } = await rebuildStore(
    { ...read.place, log: place.log },
    { ...options, tmp, projectFile: read.content, suffix },
  );
  if (handle !== undefined)
    await options.withEngine(async (engine) => {
      await engine.arrived(project, handle, read.place.cipher);
      for (const former of formerHandles) await engine.drop(project, former);
    });
  return { ...rebuilt, project, faults: [...faults, ...rebuilt.faults], done: [...done, ...rebuilt.done] };
}

/** A suffix that is not used in the project's folder yet. */
async function freeSuffix({ disk, directory }: ProjectPlace, clock: Clock): Promise<string> {
  const names = (await disk.list(directory)) ?? [];
  const time = new Date(clock.now()).toISOString().replace(/[-:.]/g, '');
  for (let n = 1; ; n++) {
    const suffix = `.before-repair-${time}${n === 1 ? '' : `-${n}`}`;
    if (!names.some((name) => name.endsWith(suffix))) return suffix;
  }
}
