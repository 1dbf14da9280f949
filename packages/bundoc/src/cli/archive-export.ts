import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { counted } from '@bundoc/shared/cli/counted';
import { CommandError, faultFound } from '@bundoc/shared/cli/errors';
import type { JsonOption } from '@bundoc/shared/cli/print';
import { PROJECTS_FOLDER } from '@bundoc/shared/contract/project-file';
import { DataFolder } from '@bundoc/shared/files/data-folder';
import { restoreArchive } from '../engine/files/archive/restore.ts';
import { TMP_FOLDER } from '../engine/files/disk/disk.ts';
import { openNodeDisk } from '../engine/files/disk/node-disk.ts';
import { identifyFolder } from '../engine/files/identity-in-folder.ts';
import type { ProjectPlace } from '../engine/files/projects/project-reader.ts';
import { readDocuments } from '../engine/files/projects/read-documents.ts';
import { viewFolder } from '../engine/files/storage-folder.ts';
import { isoOf, type StorageArchive } from './archive-place.ts';
import { planOf } from './archive-restore.ts';
import { explainMissingKey } from './missing-key.ts';
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
  const dataDir = mkdtempSync(join(tmpdir(), 'bundoc-export-'));
  try {
    const onProgress = () => signal.throwIfAborted();
    const { projects } = await restoreArchive(reader, plan, dataDir, { only: project, onProgress });
    if (projects === 0) throw new CommandError(`there was no project ${project} at ${moment}`);
    using folder = DataFolder.open(dataDir);
    await using disk = openNodeDisk(dataDir);
    const log = await viewFolder({ dataDir, folder, disk }, await identifyFolder(disk, dataDir));
    const directory = join(dataDir, PROJECTS_FOLDER, project);
    const place = { project, directory, disk, tmp: join(dataDir, TMP_FOLDER), keys, log };
    const unreadable: string[] = [];
    let documents = 0;
    for await (const one of readDocuments(place)) {
      signal.throwIfAborted();
      if ('unreadable' in one) unreadable.push(one.unreadable);
      else {
        await write(Buffer.concat([one.text, LINE_BREAK]));
        documents++;
      }
    }
    if (options.json) console.error(JSON.stringify({ project, moment, documents, unreadable }));
    else console.error(`bundoc: ${counted(documents, 'document')} of ${project} as of ${moment}`);
    for (const name of unreadable) console.error(`does not open: ${name}`);
    if (unreadable.length > 0) throw faultFound();
  } catch (cause) {
    const why = explainMissingKey(cause, project);
    throw why === undefined ? cause : new CommandError(`cannot read ${project}: ${why}`, { cause });
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

const LINE_BREAK = Buffer.from('\n');
