// A file system of its own in a file, on a loop device that takes so many write operations a second. Linux
// with cgroup v1, as root.
//
// blkio of cgroup v1 holds back the writes of threads that are in the group, and no others: not what the
// kernel's own threads write back for `syncfs`, or long after a write. So the writes that the device takes
// are counted, and more of them than the limit are reported. The thread of the file system's journal is put
// into the group as well.

import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const GROUPS = '/sys/fs/cgroup/blkio';
const IMAGE_BYTES = 24 * 2 ** 30;
const INODES = 1_500_000;
/** Writes a second of a device that has nothing to do. */
const IDLE_WRITES = 20;
const IDLE_WITHIN_MS = 600_000;

/** Why there can be no such disk here; undefined when there can. */
export function limitedDiskFault() {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'it needs Linux and root';
  if (!existsSync(join(GROUPS, 'blkio.throttle.write_iops_device'))) return 'it needs blkio of cgroup v1';
  if (!existsSync('/dev/loop-control')) return 'it needs loop devices';
  return undefined;
}

export class LimitedDisk {
  #image;
  #device;
  #group;
  /** Where it is mounted. */
  directory;
  writesPerSecond;

  /** @param {string} folder for its image */
  static async make(folder, writesPerSecond) {
    const disk = new LimitedDisk();
    disk.writesPerSecond = writesPerSecond;
    disk.#image = join(folder, 'limited-disk');
    disk.directory = join(folder, 'limited');
    mkdirSync(folder, { recursive: true });
    mkdirSync(disk.directory);
    writeFileSync(disk.#image, '');
    truncateSync(disk.#image, IMAGE_BYTES);
    try {
      disk.#device = run('losetup', '-f', '--show', disk.#image);
      // Nothing is left for the kernel to initialize later: its writes would be counted.
      const ext4 = ['-q', '-N', String(INODES), '-E', 'lazy_itable_init=0,lazy_journal_init=0'];
      run('mkfs.ext4', ...ext4, disk.#device);
      run('mount', '-o', 'noatime', disk.#device, disk.directory);
      disk.#group = join(GROUPS, `bundoc-bench-${process.pid}`);
      mkdirSync(disk.#group);
      const number = readFileSync(join(disk.#sys, 'dev'), 'utf8').trim();
      write(join(disk.#group, 'blkio.throttle.write_iops_device'), `${number} ${writesPerSecond}`);
      disk.#limitJournal();
    } catch (error) {
      await disk.stop();
      throw error;
    }
    return disk;
  }

  /** Holds a process back, with all its threads and those to come. */
  limit({ pid }) {
    write(join(this.#group, 'cgroup.procs'), String(pid));
  }

  /** Write operations that the device has taken since it is there. */
  get writes() {
    return Number(readFileSync(join(this.#sys, 'stat'), 'utf8').trim().split(/\s+/)[4]);
  }

  /** Waits until next to nothing is written. @returns milliseconds. */
  async idle() {
    const begun = performance.now();
    for (let calm = 0; calm < 3; ) {
      const before = this.writes;
      await sleep(1_000);
      calm = this.writes - before <= IDLE_WRITES ? calm + 1 : 0;
      if (performance.now() - begun > IDLE_WITHIN_MS) throw new Error('the limited disk is never idle');
    }
    return performance.now() - begun - 3_000;
  }

  async stop() {
    // A process that has just ended may still be about to let go.
    for (let tries = 0; existsSync(this.directory) && isMounted(this.directory); tries++) {
      try {
        run('umount', this.directory);
      } catch (error) {
        if (tries === 20) throw error;
        await sleep(500);
      }
    }
    if (this.#device !== undefined) run('losetup', '-d', this.#device);
    this.#device = undefined;
    if (this.#group !== undefined && existsSync(this.#group)) rmdirSync(this.#group);
    this.#group = undefined;
    rmSync(this.#image, { force: true });
  }

  get #sys() {
    return join('/sys/block', basename(this.#device));
  }

  #limitJournal() {
    const name = `jbd2/${basename(this.#device)}-`;
    for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
      const command = readIfThere(`/proc/${pid}/comm`);
      if (command?.startsWith(name)) write(join(this.#group, 'tasks'), pid);
    }
  }
}

function isMounted(directory) {
  return readFileSync('/proc/mounts', 'utf8').includes(` ${directory} `);
}

function readIfThere(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function write(path, text) {
  writeFileSync(path, `${text}\n`);
}

function run(command, ...args) {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}
