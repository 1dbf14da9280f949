import { join } from 'node:path';
import type { Clock } from '@bundoc/shared/clock';
import { PROJECT_FILE, PROJECT_FILE_COPY } from '@bundoc/shared/contract/project-file';
import { makeDirectoryDurably, replaceFile } from '../storage/embedded/disk.ts';
import { keepCopy, type LostDocument, rebuildStore } from '../storage/embedded/rebuild.ts';
import type { SeqRange } from '../storage/embedded/remains.ts';
import type { OnProgress } from '../storage/embedded/verify.ts';
import { type ProjectPlace, readProject } from './project-reader.ts';

export interface RepairOptions {
  readonly clock: Clock;
  /** Whether acknowledged commits that are damaged in the journal may be given up. */
  readonly acceptLoss: boolean;
  readonly onProgress: OnProgress;
}

export interface RepairedProject {
  readonly project: string;
  /** What was wrong; nothing when there was nothing to repair. */
  readonly faults: readonly string[];
  /** What was done. */
  readonly done: readonly string[];
  /** Sequence numbers of commits that may be lost. */
  readonly lostSeqs: readonly SeqRange[];
  /** Documents that are lost: they are in the catalog no more. */
  readonly lost: readonly LostDocument[];
  /** Documents whose state was taken from their files. */
  readonly adopted: number;
}

/**
 * Makes a project whole again that cannot be opened: `project.json` from its copy, the catalog from journal and files, the
 * journal from its whole frames. What is replaced is kept beside as `*.before-repair-<time>`. Nobody else may work on the
 * project; a crash leaves one that can be repaired again.
 *
 * @throws LossNotAccepted before anything of the store was changed; what {@link readProject} throws, before anything was.
 */
export async function repairProject(place: ProjectPlace, options: RepairOptions): Promise<RepairedProject> {
  const { project, disk, directory } = place;
  const read = await readProject(place);
  const suffix = await freeSuffix(place, options.clock);
  const done: string[] = [];
  const wrong = read.findings.map(({ part, problem }) => `${part}: ${problem}`);
  for (const { part } of read.findings) {
    if (part === read.from) continue;
    await makeDirectoryDurably(disk, join(directory, 'tmp'));
    await keepCopy(place, part, suffix, done);
    await replaceFile(disk, join(directory, 'tmp'), join(directory, part), read.content);
    done.push(part === PROJECT_FILE ? `restored ${part} from ${PROJECT_FILE_COPY}` : `wrote ${part} anew`);
  }
  const rebuilt = await rebuildStore(read.place, { ...options, suffix });
  return {
    ...rebuilt,
    project,
    faults: [...wrong, ...rebuilt.faults],
    done: [...done, ...rebuilt.done],
  };
}

/** An end of names that nothing in the project's folder has yet. */
async function freeSuffix({ disk, directory }: ProjectPlace, clock: Clock): Promise<string> {
  const names = (await disk.list(directory)) ?? [];
  const time = new Date(clock.now()).toISOString().replace(/[-:.]/g, '');
  for (let n = 1; ; n++) {
    const suffix = `.before-repair-${time}${n === 1 ? '' : `-${n}`}`;
    if (!names.some((name) => name.endsWith(suffix))) return suffix;
  }
}
