import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { PROGRAMS, pathOf } from './programs.ts';

/** moto, which simulates services of AWS on a free loopback port. It checks no signatures. */
export interface MotoProcess extends AsyncDisposable {
  readonly url: string;
}

/** @throws when moto is not installed, or does not start. */
export async function startMoto(): Promise<MotoProcess> {
  const python = pathOf('moto');
  if (python === undefined) throw new Error(`${PROGRAMS.moto.title} is missing`);
  const child = spawn(python, ['-m', 'moto.server', '-p', '0'], { stdio: ['ignore', 'ignore', 'pipe'] });
  const exited = once(child, 'exit');
  const onExit = () => child.kill('SIGKILL');
  process.once('exit', onExit);
  void exited.then(() => process.off('exit', onExit));
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stderr })) {
    const url = /Running on (http:\S+)/.exec(line)?.[1];
    if (url !== undefined) {
      // Its log is read, and thrown away: a full pipe would stop it.
      child.stderr.resume();
      return {
        url,
        [Symbol.asyncDispose]: async () => {
          child.kill('SIGKILL');
          await exited;
        },
      };
    }
    lines.push(line);
  }
  throw new Error(`moto did not start:\n${lines.join('\n')}`);
}
