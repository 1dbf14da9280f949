import { readFileSync } from 'node:fs';
import { OutsideKeyError } from './port.ts';

const MANIFEST = new URL('../../package.json', import.meta.url);

/**
 * Loads a package that most installations lack. The manifest of bunkms names it as an optional peer.
 *
 * @throws OutsideKeyError `unavailable` with the command that installs it.
 */
export async function importOptional<Module>(name: string): Promise<Module> {
  try {
    // A variable: the compiler must not ask for a package that may be missing.
    return (await import(name)) as Module;
  } catch (error) {
    const { peerDependencies } = JSON.parse(readFileSync(MANIFEST, 'utf8')) as {
      peerDependencies: Readonly<Record<string, string>>;
    };
    const command = `npm install ${name}@${peerDependencies[name] ?? 'latest'}`;
    const remedy = `run "${command}" in the folder of bunkms and restart`;
    throw new OutsideKeyError('unavailable', `the package ${name} cannot be loaded`, {
      cause: error,
      remedy,
    });
  }
}
