import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';

/** How old the newest backup of a folder becomes before the next one is written, milliseconds. */
export const BACKUP_EVERY_MS = 3_600_000;
/** The newest backups that a folder keeps, and beyond them the newest of each of so many days. */
export const NEWEST_KEPT = 24;
export const DAYS_KEPT = 7;
/** A temporary file that nobody has written to for so long is left from an ended process, milliseconds. */
export const LEFT_AFTER_MS = 600_000;

const BACKUP = /^bunkms-(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z\.backup$/;
/** A backup of a damaged store. */
const DAMAGED = /^bunkms-\d{8}T\d{6}Z\.damaged$/;
/** What `publishPrivateFile` writes first. */
const TEMPORARY = /^bunkms-\d{8}T\d{6}Z\.backup\.[0-9a-f]+\.tmp$/;

/** What a folder of backups contains. */
export interface FolderContent {
  /**
   * Whether a backup is recent enough that none is due. Undefined when the clock was set back: some are dated
   * later, so a name does not say when its backup was written.
   */
  readonly isFresh: boolean | undefined;
  /** Whether another process is writing a backup here, or ended lately while it did. */
  readonly isBeingWritten: boolean;
  /** Names of temporary files of processes that ended. */
  readonly left: readonly string[];
  /** Names of backups of a damaged store, newest first. */
  readonly damaged: readonly string[];
  /** Names of the backups beyond {@link NEWEST_KEPT} and {@link DAYS_KEPT}. */
  readonly surplus: readonly string[];
}

/**
 * The folder into which BunKMS backs itself up. A file there that has the name of a backup is complete,
 * durable and verified. Its name has the time as of which it is. Files with other names are never touched.
 */
export class BackupFolder {
  readonly path: string;
  #newestMs = 0;

  constructor(path: string) {
    this.path = resolve(path);
  }

  /** The time of the newest backup when the folder was last read, milliseconds since 1970; 0 without one. */
  get newestMs(): number {
    return this.#newestMs;
  }

  /** Creates the folder for this user only, if it does not exist. */
  async make(): Promise<void> {
    await mkdir(this.path, { recursive: true, mode: 0o700 });
  }

  /** @throws the system's error when it cannot be read. */
  async read(nowMs: number): Promise<FolderContent> {
    const entries = await readdir(this.path, { withFileTypes: true });
    const names = entries.filter((entry) => entry.isFile()).map(({ name }) => name);
    const backups = names.flatMap((name) => {
      const timeMs = timeOf(name);
      return timeMs === undefined ? [] : [{ name, timeMs }];
    });
    const isLater = ({ timeMs }: DatedBackup) => timeMs >= nowMs + BACKUP_EVERY_MS;
    // Those that are dated later were written before the clock was set back: none is newer than the others.
    const newestFirst = backups.sort(
      (one, other) => Number(isLater(one)) - Number(isLater(other)) || other.timeMs - one.timeMs,
    );
    this.#newestMs = newestFirst.find((one) => !isLater(one))?.timeMs ?? 0;
    const temporary = await this.#agesOf(
      names.filter((name) => TEMPORARY.test(name)),
      nowMs,
    );
    return {
      // By its distance, so that a clock that is a little behind asks for no second backup.
      isFresh: backups.some(isLater)
        ? undefined
        : backups.some(({ timeMs }) => Math.abs(nowMs - timeMs) < BACKUP_EVERY_MS),
      isBeingWritten: temporary.some(({ ageMs }) => ageMs < LEFT_AFTER_MS),
      left: temporary.filter(({ ageMs }) => ageMs >= LEFT_AFTER_MS).map(({ name }) => name),
      damaged: names
        .filter((name) => DAMAGED.test(name))
        .sort()
        .reverse(),
      surplus: surplusOf(newestFirst, isLater).map(({ name }) => name),
    };
  }

  /** Removes files of these names. One that is gone already is no fault. */
  async remove(names: readonly string[]): Promise<void> {
    for (const name of names) await rm(join(this.path, name), { force: true });
  }

  /** How long ago each file was last written to, whatever its clock says. */
  async #agesOf(
    names: readonly string[],
    nowMs: number,
  ): Promise<{ readonly name: string; readonly ageMs: number }[]> {
    const found = await Promise.all(
      names.map(async (name) => ({
        name,
        // Undefined when another process has removed it meanwhile.
        stats: await stat(join(this.path, name)).catch(() => undefined),
      })),
    );
    return found.flatMap(({ name, stats }) =>
      stats === undefined ? [] : [{ name, ageMs: Math.abs(nowMs - stats.mtimeMs) }],
    );
  }
}

/** The path of a backup as of a time, to the second. */
export function pathOfBackup(folder: string, timeMs: number, kind: 'backup' | 'damaged'): string {
  const stamp = new Date(timeMs).toISOString().replace(/[-:]|\.\d+/g, '');
  return join(folder, `bunkms-${stamp}.${kind}`);
}

/** @returns undefined for a name that is not one of a backup. */
function timeOf(name: string): number | undefined {
  const [, year, month, day, hour, minute, second] = BACKUP.exec(name) ?? [];
  const timeMs = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  return Number.isNaN(timeMs) ? undefined : timeMs;
}

interface DatedBackup {
  readonly name: string;
  readonly timeMs: number;
}

/** A backup that is dated later is only kept as one of the newest. */
function surplusOf(newestFirst: readonly DatedBackup[], isLater: (one: DatedBackup) => boolean) {
  const days = new Set<string>();
  return newestFirst.filter((one, place) => {
    const day = new Date(one.timeMs).toISOString().slice(0, 10);
    const isOfDay = !days.has(day) && days.size < DAYS_KEPT && !isLater(one);
    if (isOfDay) days.add(day);
    return place >= NEWEST_KEPT && !isOfDay;
  });
}
