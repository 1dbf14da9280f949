// npm run -s bunkms -- kek status
// npm run -s bundoc -- doctor
// npm run -s token -- --typ client --sub app --scope "docs:read docs:write" --project project-a
//
// Runs any command of bunkms or bundoc on the dev setup of `npm start`, even while the services run, with the
// Node version that the project needs. It uses the standard streams of this process: `token issue` prints
// only the token.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { devSetup } from './lib/dev-setup.mjs';
import { findNode } from './lib/node-runtime.mjs';
import { root, runScript, UserError } from './lib/root.mjs';

const [program, ...args] = process.argv.slice(2);

await runScript(`npm run ${program}`, async () => {
  const cli = join(root, 'packages', program, 'dist', 'cli', 'main.js');
  const setup = devSetup(root, process.env);
  const needed = [cli, setup.kmsDataDir, ...(setup.kekFile === undefined ? [] : [setup.kekFile])];
  const missing = needed.find((path) => !existsSync(path));
  if (missing !== undefined)
    throw new UserError(
      `there is no ${missing}: run "npm start" once, with the same BUNDOC_DATA_DIR and BUNKMS_* variables`,
    );
  const node = await findNode(root, process.env);
  const child = spawn(node.execPath, [cli, ...args], {
    // File names are relative to the user's working directory.
    cwd: process.env.INIT_CWD ?? root,
    env: { ...(program === 'bundoc' ? setup.bundocEnv : setup.bunkmsEnv), PATH: node.env.PATH },
    stdio: 'inherit',
  });
  const [code] = await once(child, 'close');
  return code ?? 128 + 15;
});
