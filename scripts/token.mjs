// npm run -s token -- --typ client --sub app --scope "docs:read docs:write" --project project-a
//
// Prints a token of the dev setup that `npm start` made, and nothing else; also while the services run.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { devSetup } from './lib/dev-setup.mjs';
import { findNode } from './lib/node-runtime.mjs';
import { root, runScript, UserError } from './lib/root.mjs';
import { run } from './lib/run.mjs';

const cli = join(root, 'packages', 'bunkms', 'dist', 'cli', 'main.js');

await runScript('npm run token', async () => {
  const setup = devSetup(root, process.env);
  const needed = [cli, setup.kmsDataDir, ...(setup.kekFile === undefined ? [] : [setup.kekFile])];
  if (!needed.every((path) => existsSync(path)))
    throw new UserError('there is no dev setup yet: run "npm start" once (with the same BUNKMS_* variables)');
  const node = await findNode(root, process.env);
  return run(node.execPath, [cli, 'token', 'issue', ...process.argv.slice(2)], {
    cwd: root,
    env: { ...setup.bunkmsEnv, PATH: node.env.PATH },
    stdout: 'inherit',
  });
});
