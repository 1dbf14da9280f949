import { resolve } from 'node:path';
import { counted } from '@bundoc/shared/cli/counted';
import { faultFound } from '@bundoc/shared/cli/errors';
import type { JsonOption } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { quoted } from '@bundoc/shared/cli/quoted';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { backupFileOf } from '@bundoc/shared/contract/backup-folder';
import { defined } from '@bundoc/shared/contract/defined';
import { projectFileSchema } from '@bundoc/shared/contract/project-file';
import { parseJson } from '@bundoc/shared/json/parse-json';
import { formatError } from '@bundoc/shared/logs/error-line';
import type { Environment } from '@bundoc/shared/process/config';
import { readConfig } from '../config.ts';
import { BackupDamaged, ProjectExists } from '../engine/port/errors.ts';
import type { ManifestEntry } from '../operations/backup-manifest.ts';
import { checkEntry, endOf, readBackup } from './backup-folder.ts';
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
/** How many projects are named of those for which an operator has to do the same. */
const NAMED_MAX = 3;
/** As many projects are restored at a time: each waits for its key and for the disk. */
const AT_ONCE = 4;

/**
 * `bundoc restore <folder>`: restores the projects of a folder of backups that are not there yet, into one
 * storage. So a repeated command continues. A failure does not stop the others. For keys of another storage,
 * the end names the command that lets this storage take all of them over. So does one line for all keys that
 * no storage holds, and one for all that are disabled.
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
    // Shared. A worker that fails ends it for the others, too.
    const left = Iterator.from(entries.values()).map((entry) => entry);
    const work = async () => {
      for (const entry of left) {
        await run.one(entry);
        bar.update(++count);
      }
    };
    // The storage must not close while some still write to it.
    const ended = await Promise.allSettled(Array.from({ length: AT_ONCE }, work));
    const failed = ended.find((one) => one.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    const others = place.projects.filter((project) => !entries.has(project));
    return { ...run.summary(), ...defined({ others: sampleOf(others) }) };
  });
  const { restored, present, skipped, failed, held, unheld, disabled, others, storage } = done;
  const waiting = [...held, unheld, disabled].filter((one) => one !== undefined);
  if (json) console.log(JSON.stringify({ folder, projects: entries.size, ...done }));
  else {
    const count = waiting.reduce((sum, one) => sum + one.projects, 0);
    console.log(
      `${counted(entries.size, 'project')}: ${restored} restored into storage ${storage}, ${present} there already, ${skipped.length} skipped, ${count} waiting for an administrator, ${failed.length} failed`,
    );
    for (const { project, message } of skipped) console.error(`bundoc: ${project}: skipped: ${message}`);
    for (const { project, message } of failed) console.error(`bundoc: ${project}: ${message}`);
    if (others !== undefined)
      console.error(
        `bundoc: the storage also has ${counted(others.projects, 'project')} of which the folder has no backup, such as ${others.such_as.join(', ')}`,
      );
    for (const one of held) console.error(`bundoc: ${takeOverAdvice(one)}`);
    if (unheld !== undefined)
      console.error(
        `bundoc: no storage holds ${keysOf(unheld)}: to restore what is sealed with it here, an administrator first runs "${unheld.command}" where BunKMS runs, with a copy of the folder, then run this again`,
      );
    if (disabled !== undefined)
      console.error(
        `bundoc: disabled: ${keysOf(disabled)}: if BunKMS was restored, an administrator decides on them with "${disabled.command}", then run this again`,
      );
  }
  if (failed.length + waiting.length > 0) throw faultFound();
}

interface Sample {
  /** How many projects. */
  readonly projects: number;
  /** Some of them. */
  readonly such_as: readonly string[];
}

/** Projects that an administrator can let this storage restore. */
interface Waiting extends Sample {
  /** What the administrator runs. */
  readonly command: string;
}

/** Another storage that holds keys of projects in the folder. */
interface OtherStorage extends Waiting {
  readonly storage: string;
}

function sampleOf(projects: readonly string[]): Sample | undefined {
  if (projects.length === 0) return undefined;
  return { projects: projects.length, such_as: projects.toSorted().slice(0, NAMED_MAX) };
}

function waitingFor(projects: readonly string[], command: string): Waiting | undefined {
  const sample = sampleOf(projects);
  return sample && { ...sample, command };
}

function keysOf({ projects, such_as: named }: Waiting): string {
  return projects === 1
    ? `the key of ${named[0]}`
    : `the keys of ${projects} projects, such as ${named.join(', ')}`;
}

function takeOverAdvice(one: OtherStorage): string {
  return `storage ${one.storage} holds ${keysOf(one)}: if they are to be restored here, an administrator first runs "${one.command}" (with --force when the machine of that storage is gone for certain), then run this again`;
}

interface NotRestored {
  readonly project: string;
  readonly code: string;
  readonly message: string;
}

function byProject(one: NotRestored, other: NotRestored): number {
  return one.project < other.project ? -1 : 1;
}

/** Restores projects into a storage. Several at a time, so all lists are sorted at the end. */
class RestoreRun {
  readonly #folder: string;
  readonly #place: RestorePlace;
  readonly #skipped: NotRestored[] = [];
  readonly #failed: NotRestored[] = [];
  /** Projects by the storage that holds their keys. */
  readonly #held = new Map<string, string[]>();
  /** Projects whose keys no storage holds. */
  readonly #unheld: string[] = [];
  readonly #disabled: string[] = [];
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
      skipped: this.#skipped.sort(byProject),
      failed: this.#failed.sort(byProject),
      held: [...this.#held]
        .flatMap(([storage, projects]): OtherStorage[] => {
          const command = `bunkms storage take-over ${here} --of ${storage} --confirm`;
          const waiting = waitingFor(projects, command);
          return waiting === undefined ? [] : [{ storage, ...waiting }];
        })
        .sort(({ such_as: [one = ''] }, { such_as: [other = ''] }) => (one < other ? -1 : 1)),
      ...defined({
        unheld: waitingFor(
          this.#unheld,
          `bunkms storage claim-all ${here} --from ${quoted(resolve(this.#folder))}`,
        ),
        disabled: waitingFor(this.#disabled, 'bunkms key review'),
      }),
    };
  }

  /** @throws the error after which no further project can be restored. */
  async one(entry: ManifestEntry): Promise<void> {
    const { project, gone } = entry;
    const present = await this.#place.fileOf(project);
    if (present !== undefined) this.#findPresent(project, present);
    // It was deleted, or lives in another storage: nothing is lost.
    else if (gone !== undefined && gone.why !== 'not_found')
      this.#skipped.push({
        project,
        code: gone.why,
        message: `${WHY_SKIPPED[gone.why]} since ${gone.since}`,
      });
    else await this.#restore(entry);
  }

  /** @param file its `project.json` in the storage. */
  #findPresent(project: string, file: string): void {
    const [here, inBackup] = [file, endOf(this.#folder, project)].map(createdAtIn);
    if (here === inBackup || here === undefined || inBackup === undefined) this.#present++;
    else
      this.#failed.push({
        project,
        code: 'other_project',
        message: `another project with this id was created at ${here}, and the backup is of that of ${inBackup}: to restore it, stop Bundoc, run "bundoc carry", move the present one out of the storage, and run this again`,
      });
  }

  async #restore(entry: ManifestEntry): Promise<void> {
    const { project } = entry;
    const checked = await checkEntry(this.#folder, entry);
    if ('fault' in checked) {
      this.#failed.push({
        project,
        code: checked.fault,
        message: `${backupFileOf(project)} ${checked.problem}; ${OTHER_BACKUP}`,
      });
      return;
    }
    try {
      const open = () => readBackup(this.#folder, project);
      await this.#place.restore({ facts: checked.facts, open });
      this.#restored++;
    } catch (error) {
      if (error instanceof ProjectExists) this.#present++;
      else if (hasCode(error, 'project_elsewhere') && error.storage !== undefined)
        this.#held.set(error.storage, [...(this.#held.get(error.storage) ?? []), project]);
      else if (hasCode(error, 'key_unheld')) this.#unheld.push(project);
      else if (hasCode(error, 'project_disabled')) this.#disabled.push(project);
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

/** When a project was created, by its `project.json`. A restored project has the time of its backup. */
function createdAtIn(file: string | undefined): string | undefined {
  return projectFileSchema.safeParse(parseJson(file ?? '')).data?.createdAt;
}

const OTHER_BACKUP = 'if there is another backup of the project, run "bundoc restore <file>" with it';
const WHY_SKIPPED = { deleted: 'deleted', elsewhere: 'in another storage' } as const;
