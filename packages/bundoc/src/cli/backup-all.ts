import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bundoc } from '@bundoc/client';
import { BundocError, hasCode } from '@bundoc/client/error';
import { askService, below } from '@bundoc/shared/cli/ask-service';
import { counted } from '@bundoc/shared/cli/counted';
import { CommandError, faultFound } from '@bundoc/shared/cli/errors';
import type { JsonOption } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { readText } from '@bundoc/shared/cli/read-text';
import { backupFileOf, MANIFEST_FILE } from '@bundoc/shared/contract/backup-folder';
import { defined } from '@bundoc/shared/contract/defined';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { storageIdSchema } from '@bundoc/shared/contract/storages';
import { replacePrivateFile } from '@bundoc/shared/files/private-file';
import { printable } from '@bundoc/shared/logs/printable';
import {
  type BackupSet,
  Journal,
  type ManifestEntry,
  PROJECTS_MAX,
  writeManifest,
} from '../operations/backup-manifest.ts';
import { isInPlace, withBackupFolder } from './backup-folder.ts';
import {
  endsRun,
  type Failed,
  failureOf,
  isCustomerAway,
  mayConcernAll,
  pauseAfter,
} from './backup-refusals.ts';
import { receiveBackup } from './receive-backup.ts';
import { clientOf, type ServiceAccess } from './service-client.ts';
import { MIB } from './transfer-bar.ts';

/** As many as the service makes at a time for one token. */
const AT_ONCE = 2;
const IDS_OF_PAGE = 1_000;
/** Few, so that what a page says of a project is recent when its turn comes. */
const SUMMARIES_OF_PAGE = 100;

/**
 * `bundoc backup --all`: backs up every project that the token is for, each into a file of a folder. A
 * project that is unchanged since its last backup is not requested, so nobody opens it or fetches its key. A
 * failure does not stop the others.
 *
 * @throws CommandError with exit code 1 when there were failures.
 */
export async function backUpAll(
  access: ServiceAccess,
  folder: string,
  { signal, json }: JsonOption & { readonly signal: AbortSignal },
): Promise<void> {
  const bundoc = await clientOf(access);
  const storage = await storageOf(access);
  const done = await withBackupFolder(folder, async (backups) => {
    refuseOtherStorage(folder, backups, storage);
    const run = new BackupRun({ bundoc, folder, storage, signal, earlier: backups });
    return await run.run();
  });
  const { projects, written, unchanged, bytes, failed, gone, sha256 } = done;
  if (json) console.log(JSON.stringify({ folder, ...done }));
  else {
    const size = `${(bytes / MIB).toFixed(1)} MiB`;
    console.log(
      `${counted(projects, 'project')}: ${written} backed up (${size}), ${unchanged} unchanged, ${failed.length} failed; SHA-256 of ${MANIFEST_FILE} ${sha256}`,
    );
    for (const { project, why } of gone)
      console.error(`bundoc: ${project}: ${WHY_GONE[why]}; its backup stays until you remove the file`);
    for (const { project, message } of failed) console.error(`bundoc: ${project}: ${printable(message)}`);
  }
  if (failed.length > 0) throw faultFound();
}

/**
 * After the loss of a storage, a timer would find a new and empty one at the same address. What is written
 * there must not replace the only backup.
 */
function refuseOtherStorage(
  folder: string,
  backups: BackupSet | undefined,
  storage: string | undefined,
): void {
  if (storage === undefined) return;
  for (const { storage: former } of backups?.entries.values() ?? [])
    if (former !== undefined && former !== storage)
      throw new CommandError(
        `${folder} has backups of storage ${former}, and the service has storage ${storage}: name another folder`,
      );
}

const WHY_GONE = {
  deleted: 'the project was deleted',
  elsewhere: 'another storage holds the project',
  not_found: 'the service has no such project',
} as const;
type WhyGone = keyof typeof WHY_GONE;

/** The id of the service's storage, if `/ready` is reachable; a proxy may hide it. */
async function storageOf({ url, caFile }: ServiceAccess): Promise<string | undefined> {
  try {
    const trust = defined({ ca: caFile === undefined ? undefined : await readText(caFile) });
    const { body } = await askService(below(url, '/ready'), trust);
    return storageIdSchema.safeParse(body['storage_id']).data;
  } catch {
    return undefined;
  }
}

interface RunOptions {
  readonly bundoc: Bundoc;
  readonly folder: string;
  readonly storage: string | undefined;
  readonly signal: AbortSignal;
  readonly earlier: BackupSet | undefined;
}

/** A project, and what the service calls its state. */
interface Listed {
  readonly project: string;
  readonly lastChange: string | undefined;
}

/** One run over the projects of a service. */
class BackupRun {
  readonly #options: RunOptions;
  readonly #entries: Map<string, ManifestEntry>;
  readonly #failed: Failed[] = [];
  /** Ends the other projects when the run cannot go on. */
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #listed = new Set<string>();
  /** Those whose customer is away, until they are tried again. */
  #away: (Listed & { readonly error: BundocError })[] | undefined = [];
  #written = 0;
  #unchanged = 0;
  #bytes = 0;
  #refusalsInRow = 0;

  constructor(options: RunOptions) {
    this.#options = options;
    this.#entries = new Map(options.earlier?.entries);
    this.#signal = AbortSignal.any([options.signal, this.#stop.signal]);
  }

  async run() {
    const { folder } = this.#options;
    const total = await this.#count();
    if (total > PROJECTS_MAX)
      throw new CommandError(
        `a folder has at most ${PROJECTS_MAX} projects, and the token is for ${total}: use a token and a folder for each part of them`,
      );
    {
      await using journal = await Journal.open(folder);
      using bar = createProgress('{bar} {value}/{total} projects, {mib} MiB, {eta_formatted} left');
      bar.start(total, { mib: '0.0' });
      const show = () =>
        bar.update(this.#written + this.#unchanged + this.#failed.length, {
          mib: (this.#bytes / MIB).toFixed(1),
        });
      const backUp = async (projects: AsyncGenerator<Listed>) => {
        const work = async () => {
          for await (const listed of projects) {
            await this.#one(listed, journal, show);
            show();
          }
        };
        await this.#together(Array.from({ length: AT_ONCE }, () => work));
      };
      await backUp(this.#projects());
      await backUp(this.#later());
    }
    const gone = await this.#findGone();
    const at = new Date().toISOString();
    const failed = this.#failed.map(({ project, code }) => ({ project, code }));
    const sha256 = await writeManifest(folder, this.#entries.values(), { at, failed });
    return {
      projects: this.#listed.size,
      written: this.#written,
      unchanged: this.#unchanged,
      bytes: this.#bytes,
      failed: this.#failed,
      gone,
      sha256,
    };
  }

  /** Runs all, and waits for all even if one fails. @throws the first failure. */
  async #together(runs: readonly (() => Promise<void>)[]): Promise<void> {
    let first: { readonly error: unknown } | undefined;
    await Promise.all(
      runs.map((run) =>
        run().catch((error: unknown) => {
          first ??= { error };
          this.#stop.abort(error);
        }),
      ),
    );
    if (first !== undefined) throw first.error;
  }

  async #count(): Promise<number> {
    let count = 0;
    const { bundoc } = this.#options;
    for await (const _ of bundoc.projects({ pageSize: IDS_OF_PAGE, signal: this.#signal })) count++;
    return count;
  }

  /** Those whose customer was away, once he was given the time that the service says. */
  async *#later(): AsyncGenerator<Listed> {
    const away = this.#away ?? [];
    this.#away = undefined;
    const pauseMs = Math.max(0, ...away.map(({ error }) => error.retryAfterMs ?? 0));
    if (pauseMs > 0)
      await sleep(pauseMs, undefined, { signal: this.#signal }).catch(() => this.#signal.throwIfAborted());
    yield* away;
  }

  /** The projects, each with what the service calls its state. No project is opened. */
  async *#projects(): AsyncGenerator<Listed> {
    let cursor: string | undefined;
    do {
      const page = await this.#options.bundoc.projectsPage({
        pageSize: SUMMARIES_OF_PAGE,
        cursor,
        summary: true,
        signal: this.#signal,
      });
      for (const project of page.projects) {
        // It becomes the name of a file.
        if (!projectIdSchema.safeParse(project).success)
          throw new CommandError(`the service has named a project that cannot be one: ${printable(project)}`);
        this.#listed.add(project);
        yield { project, lastChange: page.summaries.get(project)?.last_change };
      }
      cursor = page.nextCursor;
    } while (cursor !== undefined);
  }

  async #one(listed: Listed, journal: Journal, show: () => void): Promise<void> {
    const { project, lastChange } = listed;
    const earlier = this.#entries.get(project);
    if (earlier !== undefined && (await this.#isUnchanged(earlier, lastChange))) {
      this.#unchanged++;
      const { gone: _gone, ...present } = earlier;
      this.#entries.set(project, present);
      return;
    }
    try {
      const entry = await this.#backUp(project, lastChange, show);
      await journal.add(entry);
      this.#entries.set(project, entry);
      this.#written++;
      this.#refusalsInRow = 0;
    } catch (error) {
      this.#signal.throwIfAborted();
      // Deleted since it was listed.
      if (hasCode(error, 'project_not_found', 'project_destroyed')) {
        this.#listed.delete(project);
        return;
      }
      if (isCustomerAway(error) && this.#away !== undefined) {
        this.#away.push({ ...listed, error });
        return;
      }
      this.#failed.push(failureOf(project, error));
      this.#refusalsInRow = mayConcernAll(error) ? this.#refusalsInRow + 1 : 0;
      if (endsRun(error, this.#refusalsInRow)) throw error;
    }
  }

  async #isUnchanged(earlier: ManifestEntry, lastChange: string | undefined): Promise<boolean> {
    const { folder, storage } = this.#options;
    if (lastChange === undefined || earlier.last_change !== lastChange || earlier.storage !== storage)
      return false;
    return await isInPlace(folder, earlier);
  }

  async #backUp(project: string, lastChange: string | undefined, show: () => void): Promise<ManifestEntry> {
    const { bundoc, folder, storage } = this.#options;
    const path = join(folder, backupFileOf(project));
    for (let tries = 1; ; tries++) {
      const at = new Date().toISOString();
      const whole = createHash('sha256');
      let taken = 0;
      const take = (pieces: AsyncIterable<Uint8Array>) => replacePrivateFile(path, hashing(pieces, whole));
      const onProgress = (bytes: number) => {
        this.#bytes += bytes - taken;
        taken = bytes;
        show();
      };
      try {
        await receiveBackup(bundoc.project(project), take, { signal: this.#signal, onProgress });
        const sha256 = whole.digest('hex');
        return { project, bytes: taken, sha256, at, ...defined({ storage, last_change: lastChange }) };
      } catch (error) {
        this.#bytes -= taken;
        this.#signal.throwIfAborted();
        const pauseMs = pauseAfter(error, tries);
        if (pauseMs === undefined) throw error;
        await sleep(pauseMs, undefined, { signal: this.#signal }).catch(() => this.#signal.throwIfAborted());
      }
    }
  }

  /**
   * Marks the backups of projects that the service no longer lists. Backups of projects that the token is not
   * for stay as they are.
   */
  async #findGone() {
    const since = new Date().toISOString();
    for (const [project, entry] of this.#entries) {
      if (this.#listed.has(project) || entry.gone !== undefined) continue;
      const why = await this.#whyGone(project);
      if (why !== undefined) this.#entries.set(project, { ...entry, gone: { since, why } });
    }
    for (const [project, entry] of this.#entries)
      if (entry.gone !== undefined && !(await isInPlace(this.#options.folder, entry)))
        this.#entries.delete(project);
    return [...this.#entries.values()].flatMap(({ project, gone }) => (gone ? [{ project, ...gone }] : []));
  }

  async #whyGone(project: string): Promise<WhyGone | undefined> {
    try {
      const info = await this.#options.bundoc.project(project).info({ signal: this.#signal });
      return info === undefined ? 'not_found' : undefined;
    } catch (error) {
      this.#signal.throwIfAborted();
      if (!(error instanceof BundocError)) throw error;
      if (error.code === 'project_destroyed') return 'deleted';
      return error.code === 'project_elsewhere' ? 'elsewhere' : undefined;
    }
  }
}

async function* hashing(
  pieces: AsyncIterable<Uint8Array>,
  whole: ReturnType<typeof createHash>,
): AsyncGenerator<Uint8Array, void, void> {
  for await (const piece of pieces) {
    whole.update(piece);
    yield piece;
  }
}
