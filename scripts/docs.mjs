// npm run docs: builds the documentation as a site into site/dist and checks it; with `-- --serve` also
// serves it. Its dependencies are in a separate workspace, which nothing else installs.

import { join } from 'node:path';
import { findNode } from './lib/node-runtime.mjs';
import { root, runScript } from './lib/root.mjs';
import { mustRun, run } from './lib/run.mjs';
import { Stopped, stopSignal } from './lib/stop-signals.mjs';
import { PNPM } from './lib/workspace.mjs';

const stop = stopSignal(() => process.exit(1));

await runScript('npm run docs', async () => {
  const node = await findNode(root, process.env);
  const options = { cwd: join(root, 'site'), env: { ...node.env, CI: 'true' }, signal: stop };
  try {
    await mustRun('npx', ['-y', PNPM, 'install', '--frozen-lockfile', '--prefer-offline'], options);
    return await run(node.execPath, ['build.mjs', ...process.argv.slice(2)], {
      ...options,
      stdout: 'inherit',
    });
  } catch (error) {
    if (error instanceof Stopped) return 130;
    throw error;
  }
});
