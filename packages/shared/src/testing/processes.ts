import { execFileSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

export interface Process {
  readonly pid: number;
  readonly parent: number;
  /** Its command line, with spaces between the arguments. */
  readonly args: string;
}

/** All processes except zombies. */
export function processes(): Process[] {
  // A small Linux has no `ps`.
  if (process.platform === 'linux') return processesOfLinux();
  const rows = execFileSync('ps', ['-A', '-o', 'pid=,ppid=,stat=,args=']).toString().trim().split('\n');
  return rows
    .map((row) => row.trim().split(/\s+/))
    .filter(([, , state]) => !state?.startsWith('Z'))
    .map(([pid, parent, , ...args]) => ({ pid: Number(pid), parent: Number(parent), args: args.join(' ') }));
}

function processesOfLinux(): Process[] {
  return globSync('/proc/[0-9]*').flatMap((folder) => {
    try {
      // The name in brackets may contain spaces.
      const [, state, parent] = /\) (\S) (\d+)/.exec(readFileSync(join(folder, 'stat'), 'utf8')) ?? [];
      const args = readFileSync(join(folder, 'cmdline'), 'utf8').split('\0').filter(Boolean).join(' ');
      return state === 'Z' ? [] : [{ pid: Number(basename(folder)), parent: Number(parent), args }];
    } catch {
      return []; // It has ended.
    }
  });
}
