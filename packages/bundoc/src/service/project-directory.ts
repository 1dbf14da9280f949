import { AppError } from '@bundoc/shared/contract/app-error';
import type { ProjectInfo, ProjectPage } from '@bundoc/shared/contract/projects';
import type { Claims } from '@bundoc/shared/contract/tokens';
import type { Projects } from '../engine/projects.ts';
import type { InstanceManager } from '../projects/instance-manager.ts';

/** What projects there are, and what each holds. */
export class ProjectDirectory {
  readonly #projects: Pick<Projects, 'names'>;
  readonly #instances: Pick<InstanceManager, 'acquire' | 'stateOf'>;

  readonly #requireServed: () => void;

  /** @param requireServed throws an AppError while nothing of this storage may be shown. */
  constructor(
    projects: Pick<Projects, 'names'>,
    instances: Pick<InstanceManager, 'acquire' | 'stateOf'>,
    requireServed: () => void,
  ) {
    this.#projects = projects;
    this.#instances = instances;
    this.#requireServed = requireServed;
  }

  /**
   * Projects that a token is for, and no others. @param after the last id of the page before; empty for the
   * first.
   */
  async list(claims: Claims, after: string, limit: number): Promise<ProjectPage> {
    this.#requireServed();
    const only = claims.projects.includes('*') ? undefined : claims.projects;
    const names = await this.#projects.names(after, limit + 1, only);
    const projects = names.slice(0, limit).map((project) => ({ project }));
    const last = names.length > limit ? projects.at(-1)?.project : undefined;
    return last === undefined ? { projects } : { projects, next_cursor: last };
  }

  /** @throws AppError `project_not_found`, and those of opening it. */
  async describe(project: string): Promise<ProjectInfo> {
    const { isOpen, isKeyCached } = this.#instances.stateOf(project);
    using lease = await this.#instances.acquire(project, 'existing');
    if (lease === undefined) throw new AppError('project_not_found');
    const { store, file } = lease;
    const collections = await store.collections();
    const versions = file.versions.map(({ version }) => version);
    return {
      project,
      created_at: file.createdAt,
      documents: collections.reduce((sum, { documents }) => sum + documents, 0),
      collections: collections.length,
      bytes: collections.reduce((sum, { bytes }) => sum + bytes, 0),
      key: { version: Math.max(...versions), versions, documents_to_reseal: store.pendingReencryption },
      cache: { open: isOpen, key_cached: isKeyCached },
    };
  }
}
