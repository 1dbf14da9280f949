import { hash } from 'node:crypto';
import { type FileHandle, lstat, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { JOURNAL_FILE, MANIFEST_BYTES_MAX, MANIFEST_FILE } from '@bundoc/shared/contract/backup-folder';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import { storageIdSchema } from '@bundoc/shared/contract/storages';
import { replacePrivateFile } from '@bundoc/shared/files/private-file';
import { parseJson } from '@bundoc/shared/json/parse-json';
import { z } from 'zod';

/**
 * What a folder of backups has (docs/formats/backup-folder.md): a manifest with a line for each project, and
 * a journal with a line for each backup since the manifest was written. A run appends to the journal, and
 * replaces the manifest once at its end. Nothing in them is authenticated.
 */

const FORMAT = 1;
/** A line has at most 600 bytes, so a manifest of them is never too long to be read. */
export const PROJECTS_MAX = 400_000;

const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 hexadecimal digits');

const entrySchema = z.strictObject({
  /** Names the file, too: an id is never a path. */
  project: projectIdSchema,
  bytes: z.int().positive(),
  sha256: sha256Schema,
  /** When the backup was begun. */
  at: z.iso.datetime(),
  /** The storage that it is from; absent when the service did not show it. */
  storage: storageIdSchema.optional(),
  /** What the service called the state of the project before the backup was begun. */
  last_change: z.string().min(1).max(128).optional(),
  /** The service no longer has the project. */
  gone: z
    .strictObject({ since: z.iso.datetime(), why: z.enum(['deleted', 'elsewhere', 'not_found']) })
    .optional(),
});
export type ManifestEntry = z.infer<typeof entrySchema>;

const failureSchema = z.strictObject({ project: projectIdSchema, code: z.string().max(128) });
/** A project that a run could not back up. */
export type BackupFailure = z.infer<typeof failureSchema>;

const headSchema = z.strictObject({ format: z.literal(FORMAT, `must be ${FORMAT}`) });
const endSchema = z.strictObject({
  at: z.iso.datetime(),
  projects: z.int().nonnegative(),
  failed: z.array(failureSchema),
  /** Of all bytes before this line. */
  sha256: sha256Schema,
});

/** What is known of the backups in a folder. */
export interface BackupSet {
  /** By project, in the order of their ids. */
  readonly entries: ReadonlyMap<string, ManifestEntry>;
  /** When the last complete run ended; undefined before the first. */
  readonly endedAt: string | undefined;
  /** The projects that it could not back up. */
  readonly failed: readonly BackupFailure[];
  /** Whether a later run was interrupted, or goes on. */
  readonly isUnfinished: boolean;
  /** SHA-256 of the manifest; undefined when there is none. */
  readonly sha256: string | undefined;
}

/** The manifest or the journal of a folder is not of a known form. The message names the line. */
class ManifestDamaged extends Error {
  override readonly name = 'ManifestDamaged';
}

/**
 * Reads manifest and journal of a folder; undefined when it has neither.
 *
 * @throws ManifestDamaged
 */
export async function readBackups(folder: string): Promise<BackupSet | undefined> {
  const manifest = await readRegular(join(folder, MANIFEST_FILE));
  const journal = await readRegular(join(folder, JOURNAL_FILE));
  if (manifest === undefined && journal === undefined) return undefined;
  const entries = new Map<string, ManifestEntry>();
  const end = manifest && readManifest(manifest, entries);
  if (journal !== undefined) for (const entry of readJournal(journal)) entries.set(entry.project, entry);
  return {
    entries: new Map([...entries].sort(([a], [b]) => (a < b ? -1 : 1))),
    endedAt: end?.at,
    failed: end?.failed ?? [],
    isUnfinished: journal !== undefined,
    sha256: manifest && hash('sha256', manifest),
  };
}

/** The file's content, if it is a regular file; undefined when there is none. */
async function readRegular(path: string): Promise<Buffer | undefined> {
  let found: Awaited<ReturnType<typeof lstat>>;
  try {
    found = await lstat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  if (!found.isFile()) throw new ManifestDamaged(`${path} is not a regular file`);
  if (found.size > MANIFEST_BYTES_MAX)
    throw new ManifestDamaged(`${path} has more than ${MANIFEST_BYTES_MAX} bytes`);
  return await readFile(path);
}

function readManifest(bytes: Buffer, entries: Map<string, ManifestEntry>): z.infer<typeof endSchema> {
  const lines = linesOf(bytes);
  const damaged = (number: number, problem: string) =>
    new ManifestDamaged(`${MANIFEST_FILE}, line ${number}: ${problem}`);
  const read = <S extends z.ZodType>(number: number, word: string, schema: S) => {
    const value = contentOf(lines[number - 1] ?? '', word, schema);
    if (typeof value === 'string') throw damaged(number, value);
    return value.content;
  };
  read(1, 'manifest', headSchema);
  for (let number = 2; number < lines.length; number++) {
    const entry = read(number, 'project', entrySchema);
    if (entries.has(entry.project)) throw damaged(number, `${entry.project} is there twice`);
    entries.set(entry.project, entry);
  }
  const end = read(lines.length, 'end', endSchema);
  const last = Buffer.byteLength(`${lines.at(-1)}\n`);
  if (end.projects !== entries.size) throw damaged(lines.length, 'the number of projects is another');
  if (hash('sha256', bytes.subarray(0, bytes.length - last)) !== end.sha256)
    throw damaged(lines.length, 'the SHA-256 of the lines before it is another');
  return end;
}

/**
 * The entries of a journal. A crash may leave an incomplete last line, which does not count: its backup is
 * made again.
 */
function readJournal(bytes: Buffer): ManifestEntry[] {
  const entries: ManifestEntry[] = [];
  const lines = linesOf(bytes.subarray(0, bytes.lastIndexOf(0x0a) + 1));
  for (const [at, line] of lines.entries()) {
    const value = at === 0 ? contentOf(line, 'journal', headSchema) : contentOf(line, 'project', entrySchema);
    if (typeof value === 'string')
      throw new ManifestDamaged(
        `${JOURNAL_FILE}, line ${at + 1}: ${value}; remove this line and those after it, and their backups are made again`,
      );
    if ('project' in value.content) entries.push(value.content);
  }
  return entries;
}

/** Lines that each end with a line feed. */
function linesOf(bytes: Buffer): string[] {
  const lines = bytes.toString('utf8').split('\n');
  // A last line without its end is cut short, and is no valid line.
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

/** The object of a line `[word, object]`; a text says what is wrong with it. */
function contentOf<S extends z.ZodType>(
  line: string,
  word: string,
  schema: S,
): { readonly content: z.infer<S> } | string {
  const value = parseJson(line);
  if (!Array.isArray(value) || value.length !== 2) return 'it is no line of this format';
  if (value[0] !== word) return `it is no line of "${word}"`;
  const result = schema.safeParse(value[1]);
  if (result.success) return { content: result.data };
  const [issue] = result.error.issues;
  return [issue?.path.join('.'), issue?.message].filter(Boolean).join(': ');
}

function lineOf(word: string, content: object): string {
  return `${JSON.stringify([word, content])}\n`;
}

/** Appends finished backups to the journal of a folder. */
export class Journal implements AsyncDisposable {
  readonly #file: FileHandle;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  /** Opens the journal, and cuts off an incomplete last line. The caller has the folder's lock. */
  static async open(folder: string): Promise<Journal> {
    const path = join(folder, JOURNAL_FILE);
    const present = await readRegular(path);
    const file = await open(path, 'a', 0o600);
    try {
      const end = (present?.lastIndexOf(0x0a) ?? -1) + 1;
      await file.truncate(end);
      if (end === 0) await file.appendFile(lineOf('journal', { format: FORMAT }));
      await file.sync();
      return new Journal(file);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Durable once resolved. The file of the backup must be durable before. */
  async add(entry: ManifestEntry): Promise<void> {
    await this.#file.appendFile(lineOf('project', entry));
    await this.#file.datasync();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#file.close();
  }
}

/**
 * Replaces the manifest with the result of a run, then removes the journal. After a crash between the two,
 * the journal repeats what the manifest has.
 *
 * @returns the SHA-256 of the manifest.
 */
export async function writeManifest(
  folder: string,
  entries: Iterable<ManifestEntry>,
  { at, failed }: { readonly at: string; readonly failed: readonly BackupFailure[] },
): Promise<string> {
  const sorted = [...entries].sort((a, b) => (a.project < b.project ? -1 : 1));
  const lines = [lineOf('manifest', { format: FORMAT }), ...sorted.map((one) => lineOf('project', one))];
  const before = lines.join('');
  const end = { at, projects: sorted.length, failed, sha256: hash('sha256', before) };
  const text = before + lineOf('end', end);
  await replacePrivateFile(join(folder, MANIFEST_FILE), text);
  await rm(join(folder, JOURNAL_FILE), { force: true });
  return hash('sha256', text);
}
