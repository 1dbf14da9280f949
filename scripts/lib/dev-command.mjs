import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { devSetup } from './dev-setup.mjs';
import { findNode } from './node-runtime.mjs';
import { root, UserError } from './root.mjs';

/**
 * Runs a command of `bunkms` on the dev setup of `npm start`, even while the services run. It uses the
 * standard streams of this process.
 * @param {readonly string[]} args
 * @returns {Promise<number>} its exit code.
 */
export async function bunkmsOfDevSetup(args) {
  const cli = join(root, 'packages', 'bunkms', 'dist', 'cli', 'main.js');
  const setup = devSetup(root, process.env);
  const needed = [cli, setup.kmsDataDir, ...(setup.kekFile === undefined ? [] : [setup.kekFile])];
  if (!needed.every((path) => existsSync(path)))
    throw new UserError('there is no dev setup yet: run "npm start" once (with the same BUNKMS_* variables)');
  const node = await findNode(root, process.env);
  const child = spawn(node.execPath, [cli, ...args], {
    // File names are relative to the user's working directory.
    cwd: process.env.INIT_CWD ?? root,
    env: { ...setup.bunkmsEnv, PATH: node.env.PATH },
    stdio: 'inherit',
  });
  const [code] = await once(child, 'close');
  return code ?? 128 + 15;
}
