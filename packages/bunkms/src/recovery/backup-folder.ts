import assert from 'node:assert/strict';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { AuditStore } from '../store/audit.ts';
import type { BackupDestination, FolderContent } from './backup-destination.ts';

/** How old the newest backup of a folder becomes before the next one is written, milliseconds. */
export const BACKUP_EVERY_MS = 3_600_000;
/** The newest backups that a folder keeps, and beyond them the newest of each of so many days. */
export const NEWEST_KEPT = 24;
export const DAYS_KEPT = 7;
/** How long after its last write a temporary file counts as being verified, milliseconds. */
export const WRITING_MS = 600_000;
/** A temporary file of that age is left from an ended process, milliseconds. */
export const LEFT_AFTER_MS = 3_600_000;

const STAMP = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/;
const SUFFIX = '.backup';
/** What follows the name of a backup in that of its temporary file. */
const TEMPORARY = /^\d{8}T\d{6}Z\.backup\.[0-9a-f]+\.tmp$/;
const ID_DIGITS = 8;

/**
 * Names an installation: the start of the hash of its first audit record, which a restore keeps. Not
 * authenticated. @throws Error before the installation is made.
 */
export async function installationOf(store: Pick<AuditStore, 'listAudit'>): Promise<string> {
  const [first] = (await store.listAudit({ limit: 1 })).items;
  if (first === undefined) throw new Error('the store has no installation yet');
  return first.hash.slice(0, ID_DIGITS);
}

/**
 * The folder into which BunKMS backs itself up. A file there that has the name of a backup is complete,
 * durable and verified. Its name has the installation, and the time as of which it is. Files with other
 * names, such as those of other installations, are never touched.
 */
export class BackupFolder implements BackupDestination {
  readonly path: string;
  readonly #installation: () => Promise<string>;
  #prefix: string | undefined;
  #newestMs = 0;

  /** @param installation of {@link installationOf}; asked until it is known. */
  constructor(path: string, installation: () => Promise<string>) {
    this.path = resolve(path);
    this.#installation = installation;
  }

  /** The time of the newest backup when the folder was last read, milliseconds since 1970; 0 without one. */
  get newestMs(): number {
    return this.#newestMs;
  }

  /**
   * Creates the folder for this user only, if it does not exist. The one above it must exist.
   *
   * @throws Error when something else is there; the system's error.
   */
  async make(): Promise<void> {
    await mkdir(this.path, { mode: 0o700 }).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
      if (!(await stat(this.path)).isDirectory())
        throw new Error(`${this.path} is no folder: name one in BUNKMS_BACKUP_TO`);
    });
  }

  /** The path of a backup as of a time, to the second. Call it after {@link read}. */
  pathOf(timeMs: number): string {
    assert(this.#prefix !== undefined, 'the folder was read');
    return join(this.path, `${this.#prefix}${stampOf(timeMs)}.backup`);
  }

  /** @throws the system's error when it cannot be read; AppError of the store. */
  async read(nowMs: number): Promise<FolderContent> {
    this.#prefix ??= `bunkms-${await this.#installation()}-`;
    const prefix = this.#prefix;
    const entries = await readdir(this.path, { withFileTypes: true });
    const own = entries.filter((entry) => entry.isFile() && entry.name.startsWith(prefix));
    const names = own.map(({ name }) => name);
    const distance = ({ timeMs }: DatedBackup) => Math.abs(nowMs - timeMs);
    // By the distance to now: after the clock was set back, those that are dated later are not the newest.
    const newestFirst = names
      .flatMap((name) => {
        const timeMs = timeOf(name.slice(prefix.length));
        return timeMs === undefined ? [] : [{ name, timeMs }];
      })
      .sort((one, other) => distance(one) - distance(other));
    const [newest] = newestFirst;
    this.#newestMs = newest?.timeMs ?? 0;
    const temporary = await this.#agesOf(
      names.filter((name) => TEMPORARY.test(name.slice(prefix.length))),
      nowMs,
    );
    return {
      isFresh: newest !== undefined && distance(newest) < BACKUP_EVERY_MS,
      isBeingWritten: temporary.some(({ ageMs }) => ageMs < WRITING_MS),
      left: temporary.filter(({ ageMs }) => ageMs >= LEFT_AFTER_MS).map(({ name }) => name),
      surplus: surplusOf(newestFirst).map(({ name }) => name),
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

/** A time in the name of a backup, to the second: `20260102T030405Z`. */
export function stampOf(timeMs: number): string {
  return new Date(timeMs).toISOString().replace(/[-:]|\.\d+/g, '');
}

/** The time of a stamp, milliseconds since 1970; undefined for any other text. */
export function timeOfStamp(text: string): number | undefined {
  const [, year, month, day, hour, minute, second] = STAMP.exec(text) ?? [];
  const timeMs = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  return Number.isNaN(timeMs) ? undefined : timeMs;
}

/** The time in a name, after the installation; undefined for a name that is not one of a backup. */
function timeOf(name: string): number | undefined {
  return name.endsWith(SUFFIX) ? timeOfStamp(name.slice(0, -SUFFIX.length)) : undefined;
}

interface DatedBackup {
  readonly name: string;
  readonly timeMs: number;
}

function surplusOf(newestFirst: readonly DatedBackup[]) {
  const days = new Set<string>();
  return newestFirst.filter((one, place) => {
    const day = new Date(one.timeMs).toISOString().slice(0, 10);
    const isOfDay = !days.has(day) && days.size < DAYS_KEPT;
    if (isOfDay) days.add(day);
    return place >= NEWEST_KEPT && !isOfDay;
  });
}
