import { join } from 'node:path';
import { PROJECTS_FOLDER } from '@bundoc/shared/contract/project-file';
import type { Logger } from '@bundoc/shared/logs/logger';
import { openObjectStorage } from '@bundoc/shared/object-storage/open';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { type Disk, TMP_FOLDER } from '../disk/disk.ts';
import { type ArchivedEngine, ArchiveThread } from './archive-thread.ts';
import { forgetPosition } from './position.ts';
import { watchProjects } from './watch-projects.ts';

interface ArchivePorts {
  readonly dataDir: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Prepares the archive of a data folder, before anything writes to it. */
export class PreparedArchive<T extends Disk> {
  readonly #setting: string | undefined;
  readonly #ports: ArchivePorts;
  readonly #changed = new Set<string>();
  /** What the service uses, so that the archive learns of changes. */
  readonly disk: T;

  private constructor(setting: string | undefined, disk: T, ports: ArchivePorts) {
    this.#setting = setting;
    this.#ports = ports;
    const projectsDir = join(ports.dataDir, PROJECTS_FOLDER);
    const onChange = (project: string) => this.#changed.add(project);
    this.disk = setting === undefined ? disk : watchProjects(disk, projectsDir, onChange);
  }

  /**
   * @param setting undefined for no archive: then the log keeps nothing for a former one.
   * @throws ConfigError for a setting that cannot be used.
   */
  static async prepare<T extends Disk>(
    setting: string | undefined,
    disk: T,
    ports: ArchivePorts,
  ): Promise<PreparedArchive<T>> {
    if (setting === undefined) await forgetPosition(disk, ports.dataDir);
    else {
      const { clock, dataDir } = ports;
      const options = { variable: 'BUNDOC_ARCHIVE', environment: process.env, clock, dataDir };
      await openObjectStorage(setting, options)[Symbol.asyncDispose]();
    }
    return new PreparedArchive(setting, disk, ports);
  }

  get isConfigured(): boolean {
    return this.#setting !== undefined;
  }

  /** Starts to ship; undefined without an archive. */
  start(engine: ArchivedEngine & { readonly storageId: Buffer }): ArchiveThread | undefined {
    if (this.#setting === undefined) return undefined;
    const { dataDir } = this.#ports;
    return new ArchiveThread({
      ...this.#ports,
      setting: this.#setting,
      environment: awsVariables(process.env),
      projectsDir: join(dataDir, PROJECTS_FOLDER),
      tmp: join(dataDir, TMP_FOLDER),
      storageId: engine.storageId.toString('hex'),
      engine,
      changed: this.#changed,
    });
  }
}

/** The credentials that S3 may need. The thread has no other variables. */
function awsVariables(environment: NodeJS.ProcessEnv): Readonly<Record<string, string>> {
  const entries = Object.entries(environment).filter(([name]) => name.startsWith('AWS_'));
  return Object.fromEntries(entries) as Record<string, string>;
}
