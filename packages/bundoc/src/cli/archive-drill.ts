import { randomInt } from 'node:crypto';
import { counted } from '@bundoc/shared/cli/counted';
import { CommandError, faultFound } from '@bundoc/shared/cli/errors';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { codeOf } from '@bundoc/shared/files/data-folder';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { noteDrill } from '../engine/files/archive/last-drill.ts';
import type { ProjectPlace } from '../engine/files/projects/project-reader.ts';
import { verifyProject } from '../engine/files/projects/verify-project.ts';
import type { VerifiedProject } from '../engine/port/reports.ts';
import { isoOf, type StorageArchive } from './archive-place.ts';
import { planOf } from './archive-restore.ts';
import { type TemporaryMoment, withTemporaryMoment } from './archive-temporary.ts';
import { ownStorage } from './check-archive.ts';
import { projectsIn } from './open-data.ts';
import { DOCUMENTS_FORMAT } from './transfer-bar.ts';

interface DrillInput {
  /** How many projects are opened. */
  readonly sample: number;
  readonly keys: ProjectPlace['keys'];
  /** Where a good drill is noted if it is the folder of the storage. */
  readonly dataDir: string;
}

/**
 * `bundoc archive drill`: restores the newest moment into a temporary folder, opens every document of some
 * random projects, and compares them with the restored catalogs. A good one is noted for a metric.
 *
 * @throws CommandError with exit code 1 when something is missing or does not open, or when there was nothing
 *   to open; ArchiveDamaged.
 */
export async function drillArchive(
  { reader, objects, storage }: StorageArchive,
  { sample, keys, dataDir }: DrillInput,
  options: JsonOption,
): Promise<void> {
  const plan = await planOf(reader, undefined);
  const beganMs = performance.now();
  let [restored, unfinished] = [0, 0];
  const checked = await withTemporaryMoment(reader, plan, keys, async (moment: TemporaryMoment) => {
    const projects = await projectsIn(moment.disk, moment.projectsDir);
    restored = projects.length;
    unfinished = moment.unfinished.length;
    using bar = createProgress(DOCUMENTS_FORMAT);
    const verified: VerifiedProject[] = [];
    for (const project of randomOf(projects, sample))
      verified.push(
        await verifyProject(moment.place(project), (done, total) => {
          moment.signal.throwIfAborted();
          bar.show(done, total, project);
        }),
      );
    return verified;
  });
  const findings = checked.flatMap(({ project, findings: found }) =>
    found.map(({ part, problem }) => ({ project, part, problem })),
  );
  const documents = checked.reduce((sum, one) => sum + one.documents, 0);
  const moment = isoOf(plan.last.timeMs);
  const seconds = Math.round((performance.now() - beganMs) / 1_000);
  const opened = checked.map(({ project }) => project);
  const isGood = findings.length === 0 && opened.length > 0;
  const noted = isGood && (await note(dataDir, storage));
  const facts = {
    archive: objects.name,
    storage,
    moment,
    restored,
    unfinished,
    opened,
    documents,
    seconds,
    findings,
    noted,
  };
  print(options, facts, () => [
    `restored ${counted(restored, 'project')} of storage ${storage} as of ${moment}; opened ${counted(documents, 'document')} of ${counted(opened.length, 'project')} in ${seconds} s: ${isGood ? 'all good' : counted(findings.length, 'finding')}`,
    ...(unfinished === 0
      ? []
      : [`${counted(unfinished, 'project')} had just arrived, and cannot be restored yet`]),
    ...findings.map(({ project, part, problem }) => `${project}  ${part}  ${problem}`),
  ]);
  if (findings.length > 0) throw faultFound();
  if (opened.length === 0)
    throw new CommandError('the moment has no project, so the drill has shown nothing', { exitCode: 1 });
}

/** @returns whether `dataDir` is the folder of the storage, and has the note. */
async function note(dataDir: string, storage: string): Promise<boolean> {
  try {
    if (ownStorage(dataDir) !== storage) return false;
    await noteDrill(dataDir, systemClock.now());
    return true;
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') console.error(`bundoc: the drill is not noted: ${codeOf(error)}`);
    return false;
  }
}

/** At most `count` of them. */
function randomOf(projects: readonly string[], count: number): readonly string[] {
  const left = [...projects];
  return Array.from({ length: Math.min(count, left.length) }, () =>
    left.splice(randomInt(left.length), 1),
  ).flat();
}
