import { dekNameOf } from '@bundoc/shared/contract/keys';
import type { Clock } from '@bundoc/shared/runtime/clock';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { KeyCache } from '../crypto/key-cache.ts';
import type { Disk } from '../engine/files/disk/disk.ts';
import { FileProjects } from '../engine/files/projects/file-projects.ts';
import type { ProjectPlace } from '../engine/files/projects/project-reader.ts';
import { type RepairedProject, repairProject } from '../engine/files/projects/repair-project.ts';
import { verifyProject } from '../engine/files/projects/verify-project.ts';
import type { FileStore } from '../engine/files/store/file-store.ts';
import type { Finding } from '../engine/port/reports.ts';
import { FakeKeyService } from './fake-key-service.ts';
import { SimulatedDisk } from './simulated-disk.ts';
import { closeEngine, engineOn, openTestStore, viewLog } from './test-engine.ts';

const ROOT = '/projects';

/** A project with its key service, for tests of commands that work without the service. */
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

  /** Opens the project as the service does, and creates it if it is missing. */
  async open(disk: Disk): Promise<FileStore> {
    const engine = await engineOn(disk, { clock: this.clock });
    // The log frees the parts that catalogs cover.
    await engine.scanned;
    const folders = new FileProjects({
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
    const opened = await folders.openOrCreate(this.project);
    return openTestStore(this.project, opened.directory, disk, opened, this.clock);
  }

  /** The project as a command finds it. The engine of the disk is closed. */
  async place(disk: Disk): Promise<ProjectPlace> {
    const log = await viewLog(disk);
    return {
      project: this.project,
      directory: this.directory,
      tmp: '/tmp',
      disk,
      keys: this.service.held,
      log,
    };
  }

  /** Repairs the project. The engine of the disk is closed. */
  async repair(disk: Disk, acceptLoss = false): Promise<RepairedProject> {
    return repairProject(await this.place(disk), {
      clock: this.clock,
      acceptLoss,
      onProgress: () => undefined,
      withEngine: async (work) => {
        await work(await engineOn(disk, { clock: this.clock }));
        await closeEngine(disk);
      },
    });
  }

  /** The findings of `verify`. The engine of the disk is closed. */
  async findings(disk: Disk): Promise<readonly Finding[]> {
    return (await verifyProject(await this.place(disk), () => undefined)).findings;
  }

  /** Removes the key. */
  loseKey(): void {
    this.service.keys.delete(dekNameOf(this.project));
  }
}
