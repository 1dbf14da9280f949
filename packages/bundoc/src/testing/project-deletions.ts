import { randomUUID } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import { ProjectDeletion } from '../projects/delete-project.ts';
import { createServiceShares } from '../work/service-shares.ts';
import type { FakeKeyService } from './fake-key-service.ts';
import { newPlace, openInstances } from './open-instances.ts';
import type { SimulatedDisk } from './simulated-disk.ts';

export const OTHER = randomUUID();
export const MARK = '/projects/p/deleted.json';
export const DOWN = new AppError('kms_unavailable', { retryAfterS: 2 });

/** A process that deletes projects, on a disk that others before it may have left. */
export function startProcess(left?: SimulatedDisk, known?: FakeKeyService) {
  const { clock, disk, service: own } = newPlace(left);
  const service = known ?? own;
  const forgotten: string[] = [];
  const { keys, projects, instances, logger, write, setAside } = openInstances(
    { clock, disk, service },
    { onContentRemoved: (project) => forgotten.push(project) },
  );
  const ended: string[] = [];
  /** The number of changes by BunKMS, each time that unanswered requests could no longer take effect. */
  const settled: number[] = [];
  const outOfUse = Promise.withResolvers<void>();
  const feed = {
    end: (project: string) => {
      ended.push(project);
      outOfUse.resolve();
    },
  };
  const share = createServiceShares(clock).deletions;
  const deletion = new ProjectDeletion({
    projects,
    instances,
    keys,
    service: service.held,
    settleDoubt: async () => {
      if (service.failure !== undefined) throw service.failure;
      settled.push(service.changes.length);
    },
    feed,
    clock,
    logger,
    share,
  });
  const stateOf = async (project = 'p') => {
    try {
      using lease = await instances.acquire(project, 'existing');
      return lease === undefined ? 'absent' : 'open';
    } catch (error) {
      return error instanceof AppError ? error.code : String(error);
    }
  };
  const seen = { ended, forgotten, outOfUse, settled };
  const parts = { clock, service, share, keys, disk, projects, instances, deletion };
  return { ...parts, write, stateOf, setAside, ...seen };
}

/** The files of a disk, except those of the log: it belongs to no project. */
export const filesOf = (disk: SimulatedDisk) =>
  [...disk.files().keys()].filter((path) => !path.startsWith('/log/'));
