import { sep } from 'node:path';
import type { Disk } from '../disk/disk.ts';
import { SMALL_FILES } from './object.ts';

/**
 * Wraps a disk, and reports each project whose folder, or one of whose small files, changes. It reports
 * before and after the change, so that a reader of the project between the two reads it again.
 *
 * @param projectsDir the folder of all projects.
 */
export function watchProjects<T extends Disk>(
  disk: T,
  projectsDir: string,
  onChange: (project: string) => void,
): T {
  const names: ReadonlySet<string> = new Set(SMALL_FILES);
  const report = (path: string): void => {
    if (!path.startsWith(projectsDir + sep)) return;
    const [project, name, ...rest] = path.slice(projectsDir.length + 1).split(sep);
    if (project !== undefined && rest.length === 0 && (name === undefined || names.has(name)))
      onChange(project);
  };
  const reported = async <R>(path: string, change: () => Promise<R>): Promise<R> => {
    report(path);
    try {
      return await change();
    } finally {
      report(path);
    }
  };
  return {
    ...disk,
    createFile: (path, content) => reported(path, () => disk.createFile(path, content)),
    rename: (from, to) => reported(from, () => reported(to, () => disk.rename(from, to))),
    remove: (path) => reported(path, () => disk.remove(path)),
    removeTree: (path) => reported(path, () => disk.removeTree(path)),
  };
}
