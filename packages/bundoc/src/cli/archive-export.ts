import { counted } from '@bundoc/shared/cli/counted';
import { CommandError, faultFound } from '@bundoc/shared/cli/errors';
import type { JsonOption } from '@bundoc/shared/cli/print';
import type { ProjectPlace } from '../engine/files/projects/project-reader.ts';
import { readDocuments } from '../engine/files/projects/read-documents.ts';
import { isoOf, type StorageArchive } from './archive-place.ts';
import { planOf } from './archive-restore.ts';
import { type TemporaryMoment, withTemporaryMoment } from './archive-temporary.ts';
import { explainMissingKey } from './missing-key.ts';
import { projectsIn } from './open-data.ts';
import { write } from './output.ts';
import { stopSignal } from './service-client.ts';

interface ExportInput {
  readonly project: string;
  /** Milliseconds since 1970; the newest moment when undefined. */
  readonly atMs: number | undefined;
  readonly keys: ProjectPlace['keys'];
}

/**
 * `bundoc archive export`: writes the documents of a project at a moment to standard output, as stored. The
 * project is restored, sealed as it is, into a folder for this user alone, which is removed at the end.
 *
 * @throws CommandError when the project did not exist, or its key is gone; with exit code 1 for documents
 *   that do not open.
 */
export async function exportFromArchive(
  { reader }: StorageArchive,
  { project, atMs, keys }: ExportInput,
  options: JsonOption,
): Promise<void> {
  const signal = stopSignal();
  const plan = await planOf(reader, atMs);
  const moment = isoOf(plan.last.timeMs);
  const unreadable: string[] = [];
  let documents = 0;
  const writeAll = async ({ disk, projectsDir, place }: TemporaryMoment) => {
    if (!(await projectsIn(disk, projectsDir)).includes(project))
      throw new CommandError(`there was no project ${project} at ${moment}`);
    for await (const one of readDocuments(place(project))) {
      signal.throwIfAborted();
      if ('unreadable' in one) unreadable.push(one.unreadable);
      else {
        await write(Buffer.concat([one.text, LINE_BREAK]));
        documents++;
      }
    }
  };
  await withTemporaryMoment(reader, plan, keys, writeAll, project).catch((cause: unknown) => {
    const why = explainMissingKey(cause, project);
    throw why === undefined ? cause : new CommandError(`cannot read ${project}: ${why}`, { cause });
  });
  if (options.json) console.error(JSON.stringify({ project, moment, documents, unreadable }));
  else console.error(`bundoc: ${counted(documents, 'document')} of ${project} as of ${moment}`);
  for (const name of unreadable) console.error(`does not open: ${name}`);
  if (unreadable.length > 0) throw faultFound();
}

const LINE_BREAK = Buffer.from('\n');
