import type { Clock } from '@bundoc/shared/clock';
import { dekNameOf } from '@bundoc/shared/contract/keys';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { KeyCache } from '../project/key-cache.ts';
import { ProjectFolders } from '../project/project-folder.ts';
import type { ProjectPlace } from '../project/project-reader.ts';
import type { Disk } from '../storage/embedded/disk.ts';
import type { EmbeddedStore } from '../storage/embedded/embedded-store.ts';
import { FakeKeyService } from './fake-key-service.ts';
import { SimulatedDisk } from './simulated-disk.ts';
import { engineOn, openTestStore, viewLog } from './test-engine.ts';

const ROOT = '/projects';

/** A whole project, with its key service, for tests of what works on it without the service. */
export class CliProject {
  readonly project: string;
  readonly directory: string;
  readonly clock: Clock & { advance(ms: number): void } = new FakeClock();
  readonly service = new FakeKeyService(this.clock);

  constructor(project = 'p') {
    this.project = project;
    this.directory = `${ROOT}/${project}`;
  }

  static disk(): SimulatedDisk {
    return new SimulatedDisk('/', ROOT, '/tmp');
  }

  /** Opens the project as the service does, and makes it when it is not there. */
  async open(disk: Disk): Promise<EmbeddedStore> {
    const engine = await engineOn(disk, { clock: this.clock });
    const folders = new ProjectFolders({
      disk,
      directory: ROOT,
      tmp: '/tmp',
      keys: new KeyCache({ keys: this.service.held, clock: this.clock, ttlMs: 900_000 }),
      clock: this.clock,
      storage: this.service.storage,
      settle: async () => undefined,
      setAside: '/set-aside',
      engine,
    });
    const { directory, cipher } = await folders.openOrCreate(this.project);
    return openTestStore(this.project, directory, disk, cipher, this.clock);
  }

  /** As a command finds it. The engine of the disk is closed. */
  async place(disk: Disk): Promise<ProjectPlace> {
    const log = await viewLog(disk);
    return { project: this.project, directory: this.directory, tmp: '/tmp', disk, keys: this.service.held, log };
  }

  /** Takes the key away. */
  loseKey(): void {
    this.service.keys.delete(dekNameOf(this.project));
  }
}
