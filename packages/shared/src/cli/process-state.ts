import { readdir, readFile, readlink } from 'node:fs/promises';

/** The state of a listening socket in `/proc/net/tcp` (proc_net(5)). */
const LISTENING = '0A';

/** Whether a process has ended. One that nobody has waited for yet, a zombie, has ended as well. */
export async function hasEnded(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
  // The state follows the name of the program, which is in parentheses and may contain any character.
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return /^.*\) [ZX]/s.test(stat);
}

/**
 * Whether a process listens for TCP connections.
 *
 * @param port only on this one; on any without it.
 * @returns undefined when the system does not tell: it is not Linux, or the process is another user's.
 */
export async function isListening(pid: number, port?: number): Promise<boolean | undefined> {
  try {
    const folder = `/proc/${pid}/fd`;
    const names = await readdir(folder);
    const links = await Promise.all(names.map((name) => readlink(`${folder}/${name}`).catch(() => '')));
    const own = new Set(links.map((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1]));
    const tables = await Promise.all(
      ['tcp', 'tcp6'].map((name) => readFile(`/proc/${pid}/net/${name}`, 'utf8').catch(() => '')),
    );
    const rows = tables.flatMap((table) => table.split('\n')).map((row) => row.trim().split(/\s+/));
    const isWanted = (address = '') =>
      port === undefined || Number.parseInt(address.slice(address.lastIndexOf(':') + 1), 16) === port;
    return rows.some(([, local, , state, , , , , , inode]) => {
      return state === LISTENING && own.has(inode) && isWanted(local);
    });
  } catch {
    return undefined;
  }
}
