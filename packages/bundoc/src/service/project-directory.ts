import { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import type { ProjectFile } from '@bundoc/shared/contract/project-file';
import type { ProjectInfo, ProjectPage, ProjectSummary } from '@bundoc/shared/contract/projects';
import type { Claims } from '@bundoc/shared/contract/tokens';
import type { CollectionSummary } from '../engine/port/port.ts';
import type { ProjectExtent, Projects } from '../engine/projects/projects.ts';
import type { InstanceManager } from '../projects/instance-manager.ts';

export interface ProjectListQuery {
  /** The last id of the previous page; empty for the first. */
  readonly after: string;
  /** The prefix of the ids; empty for all. */
  readonly prefix: string;
  readonly limit: number;
  /** Whether to include the totals of each, as far as they are known without its key. */
  readonly summary: boolean;
}

/** Lists projects and their totals. */
export class ProjectDirectory {
  readonly #projects: Pick<Projects, 'names' | 'extents'>;
  readonly #instances: Pick<InstanceManager, 'acquire' | 'stateOf' | 'instanceIfOpen'>;

  readonly #requireServed: () => void;

  /**
   * @param requireServed throws an AppError while this storage must not be served.
   */
  constructor(
    projects: Pick<Projects, 'names' | 'extents'>,
    instances: Pick<InstanceManager, 'acquire' | 'stateOf' | 'instanceIfOpen'>,
    requireServed: () => void,
  ) {
    this.#projects = projects;
    this.#instances = instances;
    this.#requireServed = requireServed;
  }

  /** Lists the projects that the token may access. It opens none and fetches no key. */
  async list(claims: Claims, query: ProjectListQuery): Promise<ProjectPage> {
    this.#requireServed();
    const { after, prefix, limit, summary } = query;
    const only = claims.projects.includes('*') ? undefined : claims.projects;
    const names = await this.#projects.names(after, limit + 1, only, prefix);
    const page = names.slice(0, limit);
    const last = names.length > limit ? page.at(-1) : undefined;
    const next = defined({ next_cursor: last });
    if (!summary) return { projects: page.map((project) => ({ project })), ...next };
    const summaries = await this.#readSummaries(page);
    return { projects: page.map((project, at) => ({ project, summary: summaries[at] })), ...next };
  }

  /** Open projects have current totals; for the others, the storage has clear ones. */
  async #readSummaries(projects: readonly string[]): Promise<ProjectSummary[]> {
    const extents = await this.#projects.extents(projects);
    const summaries: ProjectSummary[] = [];
    for (const project of projects) {
      const { isOpen, keyUntilMs } = this.#instances.stateOf(project);
      const stored = extents.get(project);
      const extent = (await this.#extentIfOpen(project)) ?? stored;
      summaries.push({
        ...(extent && { documents: extent.documents, bytes: extent.bytes, key_version: extent.keyVersion }),
        ...(stored && { last_change: stored.lastChange }),
        open: isOpen,
        ...(keyUntilMs === undefined ? {} : { key_until: new Date(keyUntilMs).toISOString() }),
      });
    }
    return summaries;
  }

  async #extentIfOpen(project: string): Promise<Omit<ProjectExtent, 'lastChange'> | undefined> {
    const instance = this.#instances.instanceIfOpen(project);
    if (instance === undefined) return undefined;
    const { documents, bytes } = totalsOf(await instance.store.collections());
    return { documents, bytes, keyVersion: currentVersion(instance.file) };
  }

  /** @throws AppError `project_not_found`, and those of opening it. */
  async describe(project: string): Promise<ProjectInfo> {
    const { isOpen, keyUntilMs } = this.#instances.stateOf(project);
    using lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    const { store, file } = lease;
    const collections = await store.collections();
    return {
      project,
      created_at: file.createdAt,
      collections: collections.length,
      ...totalsOf(collections),
      key: {
        version: currentVersion(file),
        versions: file.versions.map(({ version }) => version),
        documents_to_reseal: store.pendingReencryption,
      },
      cache: { open: isOpen, key_cached: keyUntilMs !== undefined },
    };
  }
}

function totalsOf(collections: readonly CollectionSummary[]): { documents: number; bytes: number } {
  return {
    documents: collections.reduce((sum, { documents }) => sum + documents, 0),
    bytes: collections.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

function currentVersion({ versions }: ProjectFile): number {
  return Math.max(...versions.map(({ version }) => version));
}
