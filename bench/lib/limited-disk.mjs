// A separate file system in a file, on a loop device with a limit of write operations per second. Needs Linux
// with cgroup v1, and root. blkio of cgroup v1 limits only the writes of threads in the group. It does not
// limit writeback by kernel threads, for `syncfs` or long after a write. So all writes of the device are
// counted, and an excess over the limit is reported. The thread of the file system's journal is in the group
// too.

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
/** Writes per second of an idle device. */
const IDLE_WRITES = 20;
const IDLE_WITHIN_MS = 600_000;

/** Why such a disk is impossible here; undefined when it is possible. */
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
  /** Its mount point. */
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
      // Without lazy initialization by the kernel, whose writes would be counted.
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

  /** Limits a process with all its present and future threads. */
  limit({ pid }) {
    write(join(this.#group, 'cgroup.procs'), String(pid));
  }

  /** Write operations of the device since its creation. */
  get writes() {
    return Number(readFileSync(join(this.#sys, 'stat'), 'utf8').trim().split(/\s+/)[4]);
  }

  /** Waits until the device is nearly idle. @returns milliseconds. */
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
    // A process that has just exited may not have released it yet.
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
