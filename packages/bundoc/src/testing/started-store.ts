import type { FileStore } from '../engine/files/store/file-store.ts';
import { ProjectInFiles } from './project-in-files.ts';
import type { SimulatedDisk } from './simulated-disk.ts';
import { SMALL_LIMITS } from './test-engine.ts';

export async function started(
  limits = SMALL_LIMITS,
): Promise<{ project: ProjectInFiles; disk: SimulatedDisk; store: FileStore }> {
  const project = new ProjectInFiles({ limits });
  const disk = ProjectInFiles.disk();
  await project.create(disk);
  return { project, disk, store: await project.open(disk) };
}

/** For what is large. */
export const LARGE_LIMITS = {
  log: {
    segmentBytes: 2_097_152,
    segmentsMin: 4,
    segmentsMax: 16,
    frameBytes: 1_048_576,
    chunkBytes: 262_144,
  },
  checkpointBytes: 4_194_304,
};

export const logFiles = (disk: SimulatedDisk) =>
  [...disk.files().keys()].filter((path) => path.startsWith('/log/'));

export const documentFiles = (disk: SimulatedDisk) =>
  [...disk.files().keys()].filter((path) => path.includes('/docs/'));
