import { createLogger, type Logger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { KeyCache } from '../crypto/key-cache.ts';
import { FileProjects } from '../engine/files/projects/file-projects.ts';
import type { MarkSetAside } from '../engine/moves/set-aside.ts';
import { InstanceManager, type InstanceManagerOptions } from '../projects/instance-manager.ts';
import { FakeKeyService } from './fake-key-service.ts';
import { SimulatedDisk } from './simulated-disk.ts';
import { engineOn, openTestStore } from './test-engine.ts';
import { put } from './writes.ts';

export const TTL_MS = 900_000;

/** What outlives a process: a disk with projects, their keys, and time. */
export function newPlace(disk = new SimulatedDisk('/', '/projects')) {
  const clock = new FakeClock();
  return { clock, disk, service: new FakeKeyService(clock) };
}

/** The projects in folders of a process, with what opens them; others before it may have left something. */
export function openInstances(
  { clock, disk, service }: ReturnType<typeof newPlace>,
  options: Partial<InstanceManagerOptions> & { readonly onContentRemoved?: (project: string) => void } = {},
) {
  const { onContentRemoved, ...others } = options;
  const setAside: MarkSetAside[] = [];
  // The moment of a refresh is drawn: at 80 % of a key's time here.
  const random = () => 2 / 3;
  const keys = new KeyCache({ keys: service.held, clock, ttlMs: TTL_MS, random });
  const engine = () => engineOn(disk, { clock });
  const logger: Logger = createLogger({ service: 'bundoc', level: 'silent' });
  const projects = new FileProjects({
    disk,
    directory: '/projects',
    tmp: '/tmp',
    keys,
    clock,
    storage: service.storage,
    setAside: '/set-aside',
    settle: async () => undefined,
    onSetAside: (mark) => setAside.push(mark),
    engine: {
      create: async (...args) => (await engine()).create(...args),
      newest: () => undefined,
      forget: async (project) => {
        onContentRemoved?.(project);
        await (await engine()).forget(project);
      },
    },
  });
  const instances = new InstanceManager({
    projects,
    keys,
    clock,
    logger,
    openStore: (project, opening) => openTestStore(project, `/projects/${project}`, disk, opening, clock),
    ...others,
  });
  const write = async (project = 'p', id = 'a') => {
    using lease = await instances.acquire(project, 'create');
    return await lease.store.commit([put(id, '{"v":1}')]);
  };
  return { keys, projects, instances, logger, write, setAside };
}
