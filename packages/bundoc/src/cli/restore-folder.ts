import { join } from 'node:path';
import { counted } from '@bundoc/shared/cli/counted';
import { faultFound } from '@bundoc/shared/cli/errors';
import type { JsonOption } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { formatError } from '@bundoc/shared/logs/error-line';
import type { Environment } from '@bundoc/shared/process/config';
import { readConfig } from '../config.ts';
import { BackupDamaged, ProjectExists } from '../engine/port/errors.ts';
import type { ManifestEntry } from '../operations/backup-manifest.ts';
import { checkEntry, readFromStart } from './backup-folder.ts';
import { explainMissingKey } from './missing-key.ts';
import { type RestorePlace, withRestorePlace } from './restore-place.ts';
import { requireBackups } from './verify-folder.ts';

/** No further project can be restored after these. */
const ENDING: ReadonlySet<string> = new Set([
  'kms_unavailable',
  'storage_superseded',
  'unauthenticated',
  'disk_full',
]);
/** How many projects of a storage are named. */
const NAMED_MAX = 3;

/**
 * `bundoc restore <folder>`: restores the projects of a folder of backups that are not there yet, into one
 * storage. So a repeated command continues. A failure does not stop the others. For keys of another storage,
 * the end names the command that lets this storage take all of them over.
 *
 * @throws CommandError with exit code 1 when something was not restored.
 */
export async function restoreFolder(
  environment: Environment,
  folder: string,
  { json }: JsonOption,
): Promise<void> {
  const { entries, isUnfinished } = await requireBackups(folder);
  if (isUnfinished)
    console.error(
      `bundoc: the last backup into ${folder} has not ended: the projects that it has are restored`,
    );
  const done = await withRestorePlace(readConfig(environment), async (place) => {
    const run = new RestoreRun(folder, place);
    using bar = createProgress('{bar} {value}/{total} projects, {eta_formatted} left');
    bar.start(Math.max(1, entries.size));
    let count = 0;
    for (const entry of entries.values()) {
      await run.one(entry);
      bar.update(++count);
    }
    return run.summary();
  });
  const { restored, present, skipped, failed, held, storage } = done;
  if (json) console.log(JSON.stringify({ folder, projects: entries.size, ...done }));
  else {
    const waiting = held.reduce((sum, one) => sum + one.projects, 0);
    console.log(
      `${counted(entries.size, 'project')}: ${restored} restored into storage ${storage}, ${present} there already, ${skipped.length} skipped, ${waiting} with keys of another storage, ${failed.length} failed`,
    );
    for (const { project, message } of skipped) console.error(`bundoc: ${project}: skipped: ${message}`);
    for (const { project, message } of failed) console.error(`bundoc: ${project}: ${message}`);
    for (const one of held) console.error(`bundoc: ${takeOverAdvice(one)}`);
  }
  if (failed.length + held.length > 0) throw faultFound();
}

/** Another storage that holds keys of projects in the folder. */
interface OtherStorage {
  readonly storage: string;
  /** How many projects wait for their keys. */
  readonly projects: number;
  /** Some of them. */
  readonly such_as: readonly string[];
  /** What lets this storage take the keys over. */
  readonly command: string;
}

function takeOverAdvice({ storage, projects, such_as: named, command }: OtherStorage): string {
  const keys =
    projects === 1
      ? `the key of ${named[0]}`
      : `the keys of ${projects} projects, such as ${named.join(', ')}`;
  return `storage ${storage} holds ${keys}: if they are to be restored here, an administrator first runs "${command}" (with --force when the machine of that storage is gone for certain), then run this again`;
}

interface NotRestored {
  readonly project: string;
  readonly code: string;
  readonly message: string;
}

/** Restores one project after another into a storage. */
class RestoreRun {
  readonly #folder: string;
  readonly #place: RestorePlace;
  readonly #skipped: NotRestored[] = [];
  readonly #failed: NotRestored[] = [];
  /** Projects by the storage that holds their keys. */
  readonly #held = new Map<string, string[]>();
  #restored = 0;
  #present = 0;

  constructor(folder: string, place: RestorePlace) {
    this.#folder = folder;
    this.#place = place;
  }

  summary() {
    const { storage: here } = this.#place;
    return {
      storage: here,
      restored: this.#restored,
      present: this.#present,
      skipped: this.#skipped,
      failed: this.#failed,
      held: [...this.#held].map(([storage, projects]): OtherStorage => {
        const command = `bunkms storage take-over ${here} --of ${storage} --confirm`;
        return { storage, projects: projects.length, such_as: projects.slice(0, NAMED_MAX), command };
      }),
    };
  }

  /** @throws the error after which no further project can be restored. */
  async one(entry: ManifestEntry): Promise<void> {
    const { project, gone } = entry;
    if (await this.#place.isThere(project)) this.#present++;
    // It was deleted, or lives in another storage: nothing is lost.
    else if (gone !== undefined && gone.why !== 'not_found')
      this.#skipped.push({
        project,
        code: gone.why,
        message: `${WHY_SKIPPED[gone.why]} since ${gone.since}`,
      });
    else await this.#restore(entry);
  }

  async #restore(entry: ManifestEntry): Promise<void> {
    const { project } = entry;
    const checked = await checkEntry(this.#folder, entry);
    if ('fault' in checked) {
      this.#failed.push({ project, code: checked.fault, message: `${entry.file} ${checked.problem}` });
      return;
    }
    try {
      const open = () => readFromStart(join(this.#folder, entry.file));
      await this.#place.restore({ facts: checked.facts, open });
      this.#restored++;
    } catch (error) {
      if (error instanceof ProjectExists) this.#present++;
      else if (hasCode(error, 'project_elsewhere') && error.storage !== undefined)
        this.#held.set(error.storage, [...(this.#held.get(error.storage) ?? []), project]);
      // Deleted since its backup. No backup can bring it back.
      else if (hasCode(error, 'project_destroyed'))
        this.#skipped.push({ project, code: 'deleted', message: 'its key was permanently destroyed' });
      else this.#failed.push(this.#failureOf(project, error));
    }
  }

  #failureOf(project: string, error: unknown): NotRestored {
    if (error instanceof BackupDamaged) return { project, code: 'damaged', message: formatError(error) };
    if (!(error instanceof AppError) || ENDING.has(error.code)) throw error;
    const why = explainMissingKey(error, project, this.#place.storage);
    return { project, code: error.code, message: why ?? formatError(error) };
  }
}

const WHY_SKIPPED = { deleted: 'deleted', elsewhere: 'in another storage' } as const;
