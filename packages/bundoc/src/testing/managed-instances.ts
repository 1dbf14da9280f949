import assert from 'node:assert/strict';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { Logger } from '@bundoc/shared/logs/logger';
import type { ProjectStore } from '../engine/port/port.ts';
import type { Projects } from '../engine/projects/projects.ts';
import type { InstanceManagerOptions } from '../projects/instance-manager.ts';
import { newPlace, openInstances } from './open-instances.ts';
import { openTestStore } from './test-engine.ts';

export function startManager(options: Partial<InstanceManagerOptions> = {}) {
  const place = newPlace();
  const { clock, disk } = place;
  /** Number of open stores by project, to check that no project has more than one. */
  const opened = new Map<string, number>();
  let openings = 0;
  let closings = 0;
  let isListBroken = false;
  const {
    instances: manager,
    logger: silent,
    ...others
  } = openInstances(place, {
    openStore: async (project, opening) => {
      openings++;
      opened.set(project, (opened.get(project) ?? 0) + 1);
      const store = await openTestStore(project, `/projects/${project}`, disk, opening, clock);
      if (isListBroken) store.list = () => Promise.reject(new AppError('storage_unavailable'));
      const close = store[Symbol.asyncDispose].bind(store);
      store[Symbol.asyncDispose] = async () => {
        closings++;
        await close();
        opened.set(project, (opened.get(project) ?? 0) - 1);
      };
      return store;
    },
    ...options,
  });
  const logger: Logger = silent;
  return {
    ...place,
    ...others,
    logger,
    manager,
    opened,
    openings: () => openings,
    closings: () => closings,
    breakLists: (isBroken: boolean) => {
      isListBroken = isBroken;
    },
  };
}

/** Any number of projects, each with a key and an empty store that counts with some memory. */
export async function startManagerOfMany(options: Partial<InstanceManagerOptions> = {}) {
  const place = newPlace();
  const seed = openInstances(place);
  await seed.write('seed');
  const { keys } = seed;
  const opened = await seed.projects.open('seed');
  assert(opened !== undefined);
  const { file, cipher } = opened;
  await seed.instances[Symbol.asyncDispose]();
  const memory = new Map<string, number>();
  let openings = 0;
  let absent = 0;
  let running = 0;
  let runningMax = 0;
  const held: { gate: Promise<void> | undefined } = { gate: undefined };
  const open = async (project: string) => {
    if (project.startsWith('absent')) {
      absent++;
      return undefined;
    }
    if (!place.service.keys.has(`${project}-dek`)) place.service.put(`${project}-dek`);
    return { file, cipher, keys: [await keys.get(project)] as const };
  };
  const { instances: manager } = openInstances(place, {
    keys,
    projects: Object.assign(Object.create(seed.projects) as Projects, {
      open,
      keepWrappings: async () => file,
    }),
    openStore: async (project) => {
      openings++;
      runningMax = Math.max(runningMax, ++running);
      await held.gate;
      running--;
      return {
        pendingReencryption: 0,
        failed: false,
        get memoryBytes() {
          return memory.get(project) ?? 0;
        },
        list: async () => ({ documents: [], unreadable: [], next: undefined }),
        checkpoint: async () => undefined,
        [Symbol.asyncDispose]: async () => undefined,
      } as unknown as ProjectStore;
    },
    ...options,
  });
  const use = async (project: string) => {
    const lease = await manager.acquire(project, 'existing');
    lease?.[Symbol.dispose]();
    return lease !== undefined;
  };
  const isOpen = (project: string) => manager.stateOf(project).isOpen;
  return {
    ...place,
    keys,
    manager,
    memory,
    use,
    isOpen,
    held,
    openings: () => openings,
    absent: () => absent,
    runningMax: () => runningMax,
  };
}

export const KIB = 1_024;
