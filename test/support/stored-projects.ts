import { randomBytes } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { PATIENT_MS, patientUrl } from '@bundoc/shared/testing/timing';
import pg from 'pg';
import { inject } from 'vitest';

declare module 'vitest' {
  interface ProvidedContext {
    /** The URL of a role that may create databases; absent when tests run on files. */
    postgresUrl?: string;
  }
}

export interface SealedDocument {
  /** In hex. */
  readonly name: string;
  readonly sealed: Buffer;
}

/** Access to a storage from outside the service: files or rows. */
export interface StoredProjects {
  /** The variables that make Bundoc use this storage. */
  readonly environment: Readonly<Record<string, string>>;
  ids(): Promise<string[]>;
  /** The names of files and folders, or tables, with data of a project. */
  partsOf(project: string): Promise<string[]>;
  /** Removes all data of a project while no service runs. */
  remove(project: string): Promise<void>;
  /** The text of `project.json`. */
  projectFile(project: string): Promise<string>;
  /** Waits until there are `count`, because files are written in the background after their commits. */
  sealedDocuments(project: string, count: number): Promise<SealedDocument[]>;
  /** Replaces the bytes of a document, as an attacker with the storage could. */
  replaceSealed(project: string, document: SealedDocument): Promise<void>;
  /** Everything stored, including names. */
  everything(): Promise<Buffer>;
  /** Whether only the deletion marker of a project is left. */
  hasOnlyMark(project: string): Promise<boolean>;
  /** Plants a marker for a project, which need not exist, as an attacker with the storage could. */
  plantMark(kind: 'deleted.json' | 'move.mark', project: string, text: string): Promise<void>;
  /** The file with the identity and generation of the storage. */
  identity(): Promise<string>;
  setIdentity(text: string): Promise<void>;
  /**
   * Sets back the time of the last change of the identity, if the storage records it. In files, the process
   * uses its own clock.
   */
  setIdentityBack(seconds: number): Promise<void>;
  /** Copies the storage while no service runs. @param dataDir the folder of the copy, for files. */
  clone(dataDir: string): Promise<StoredProjects>;
  /** Leaves the remains of an interrupted creation of a project. */
  cutCreationShort(project: string): Promise<void>;
  /** A folder for `bunkms recover --from`, which may be created in `emptyFolder`. */
  projectFilesIn(emptyFolder: string): Promise<string>;
}

/** A new storage of the kind that this test run uses. */
export async function newStorage(dataDir: string): Promise<StoredProjects> {
  const postgresUrl = inject('postgresUrl');
  return postgresUrl === undefined ? storageInFiles(dataDir) : StoredRows.create(postgresUrl);
}

export function storageInFiles(dataDir: string): StoredProjects {
  return new StoredFiles(dataDir);
}

/**
 * The paths of a project's document files, once there are `count` and none of them is empty. A file is
 * created before its bytes are written.
 */
export async function documentFiles(dataDir: string, project: string, count: number): Promise<string[]> {
  const docs = join(dataDir, 'projects', project, 'docs');
  const deadline = Date.now() + PATIENT_MS;
  for (;;) {
    // The folder is created with the first document.
    const entries = existsSync(docs) ? readdirSync(docs, { withFileTypes: true }) : [];
    const files = entries
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name));
    const written = files.filter((path) => statSync(path).size > 0).length;
    if (files.length === count && written === count) return files;
    if (Date.now() > deadline) throw new Error(`${written} document files are written, not ${count}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

class StoredFiles implements StoredProjects {
  readonly environment: Readonly<Record<string, string>>;
  readonly #dataDir: string;

  constructor(dataDir: string) {
    this.#dataDir = dataDir;
    this.environment = { BUNDOC_DATA_DIR: dataDir };
  }

  async ids(): Promise<string[]> {
    return readdirSync(join(this.#dataDir, 'projects'));
  }

  async partsOf(project: string): Promise<string[]> {
    const folder = join(this.#dataDir, 'projects', project);
    return existsSync(folder) ? readdirSync(folder) : [];
  }

  async remove(project: string): Promise<void> {
    rmSync(join(this.#dataDir, 'projects', project), { recursive: true });
  }

  async projectFile(project: string): Promise<string> {
    return readFileSync(join(this.#dataDir, 'projects', project, 'project.json'), 'utf8');
  }

  async sealedDocuments(project: string, count: number): Promise<SealedDocument[]> {
    return (await documentFiles(this.#dataDir, project, count)).map((path) => {
      if (basename(dirname(path)) !== 'docs') throw new Error(`${path} is not in the folder docs`);
      return { name: basename(path), sealed: readFileSync(path) };
    });
  }

  async replaceSealed(project: string, { name, sealed }: SealedDocument): Promise<void> {
    writeFileSync(join(this.#dataDir, 'projects', project, 'docs', name), sealed);
  }

  async everything(): Promise<Buffer> {
    const files = readdirSync(this.#dataDir, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name));
    return Buffer.concat(files.flatMap((path) => [Buffer.from(path), readFileSync(path)]));
  }

  async hasOnlyMark(project: string): Promise<boolean> {
    return readdirSync(join(this.#dataDir, 'projects', project)).join() === 'deleted.json';
  }

  async plantMark(kind: string, project: string, text: string): Promise<void> {
    const folder = join(this.#dataDir, 'projects', project);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, kind), text);
  }

  async identity(): Promise<string> {
    return readFileSync(join(this.#dataDir, 'storage.json'), 'utf8');
  }

  async setIdentity(text: string): Promise<void> {
    writeFileSync(join(this.#dataDir, 'storage.json'), text);
  }

  async setIdentityBack(): Promise<void> {}

  async clone(dataDir: string): Promise<StoredProjects> {
    cpSync(this.#dataDir, dataDir, { recursive: true });
    return new StoredFiles(dataDir);
  }

  async cutCreationShort(project: string): Promise<void> {
    mkdirSync(join(this.#dataDir, 'projects', project, 'docs'), { recursive: true });
  }

  async projectFilesIn(): Promise<string> {
    return this.#dataDir;
  }
}

class StoredRows implements StoredProjects {
  readonly environment: Readonly<Record<string, string>>;
  readonly #url: string;

  private constructor(url: string, unusedFolder: string) {
    this.#url = url;
    this.environment = { BUNDOC_STORAGE: patientUrl(url), BUNDOC_DATA_DIR: unusedFolder };
  }

  /** @param template the database to copy; by default the new one is empty. */
  static async create(adminUrl: string, template = 'template1'): Promise<StoredRows> {
    const name = `test_${randomBytes(6).toString('hex')}`;
    await query(adminUrl, `CREATE DATABASE ${name} TEMPLATE ${template}`);
    const url = new URL(adminUrl);
    url.pathname = name;
    return new StoredRows(url.href, `/nowhere/${name}`);
  }

  async ids(): Promise<string[]> {
    if (existsSync(String(this.environment['BUNDOC_DATA_DIR'])))
      throw new Error('a node has made a data folder');
    return (await query(this.#url, 'SELECT project FROM bundoc.projects ORDER BY 1')).map(String);
  }

  async partsOf(project: string): Promise<string[]> {
    const parts: string[] = [];
    for (const table of await this.#tables()) {
      const rows = await query(this.#url, `SELECT 1 FROM bundoc.${table} WHERE project = $1 LIMIT 1`, [
        project,
      ]);
      if (rows.length > 0) parts.push(table);
    }
    return parts;
  }

  async remove(project: string): Promise<void> {
    for (const table of await this.#tables())
      await query(this.#url, `DELETE FROM bundoc.${table} WHERE project = $1`, [project]);
  }

  async #tables(): Promise<string[]> {
    const columns = `SELECT table_name FROM information_schema.columns WHERE table_schema = 'bundoc' AND column_name = 'project'`;
    return (await query(this.#url, columns)).map(String);
  }

  async projectFile(project: string): Promise<string> {
    const text = 'SELECT coalesce(file, marker) FROM bundoc.projects WHERE project = $1';
    return String(await query(this.#url, text, [project]));
  }

  async sealedDocuments(project: string, count: number): Promise<SealedDocument[]> {
    const text = 'SELECT name, sealed FROM bundoc.documents WHERE project = $1 AND deleted_ms = 0';
    const rows = (await query(this.#url, text, [project])) as [Buffer, Buffer][];
    if (rows.length !== count) throw new Error(`there are ${rows.length} documents, not ${count}`);
    return rows.map(([name, sealed]) => ({ name: name.toString('hex'), sealed }));
  }

  async replaceSealed(project: string, { name, sealed }: SealedDocument): Promise<void> {
    const text = 'UPDATE bundoc.documents SET sealed = $3 WHERE project = $1 AND name = $2';
    await query(this.#url, text, [project, Buffer.from(name, 'hex'), sealed]);
  }

  async everything(): Promise<Buffer> {
    const tables = await query(
      this.#url,
      "SELECT tablename::text FROM pg_tables WHERE schemaname = 'bundoc'",
    );
    const rows = await Promise.all(
      tables.map(([table]) => query(this.#url, `SELECT * FROM bundoc.${table}`)),
    );
    const values = rows.flat(2);
    return Buffer.concat(
      values.map((value) => (Buffer.isBuffer(value) ? value : Buffer.from(`${String(value)}\n`))),
    );
  }

  async hasOnlyMark(project: string): Promise<boolean> {
    const holding: string[] = [];
    for (const table of await this.#tables()) {
      const rows = await query(this.#url, `SELECT 1 FROM bundoc.${table} WHERE project = $1`, [project]);
      if (rows.length > 0) holding.push(table);
    }
    return holding.join() === 'projects' && 'deleted' in JSON.parse(await this.projectFile(project));
  }

  async plantMark(_kind: string, project: string, text: string): Promise<void> {
    const plant = `INSERT INTO bundoc.projects (project, marker) VALUES ($1, $2)
                   ON CONFLICT (project) DO UPDATE SET marker = excluded.marker`;
    await query(this.#url, plant, [project, text]);
  }

  async identity(): Promise<string> {
    return String(await query(this.#url, 'SELECT file FROM bundoc.storage'));
  }

  async setIdentity(text: string): Promise<void> {
    await query(this.#url, 'UPDATE bundoc.storage SET file = $1', [text]);
  }

  async setIdentityBack(seconds: number): Promise<void> {
    const text = 'UPDATE bundoc.storage SET changed_at = changed_at - make_interval(secs => $1)';
    await query(this.#url, text, [seconds]);
  }

  async clone(): Promise<StoredProjects> {
    const admin = new URL(this.#url);
    const [, name] = admin.pathname.split('/');
    admin.pathname = 'postgres';
    return StoredRows.create(admin.href, name);
  }

  /** Does nothing: the creation is one transaction, which leaves no remains. */
  async cutCreationShort(): Promise<void> {}

  /** Follows docs/operations/scaling.md. */
  async projectFilesIn(emptyFolder: string): Promise<string> {
    for (const project of await this.ids()) {
      const folder = join(emptyFolder, 'projects', project);
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, 'project.json'), await this.projectFile(project));
    }
    return emptyFolder;
  }
}

async function query(url: string, text: string, values: unknown[] = []): Promise<unknown[][]> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    return (await client.query<unknown[]>({ text, values, rowMode: 'array' })).rows;
  } finally {
    await client.end();
  }
}
