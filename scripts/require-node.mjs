// The start of `npm run build`: the sources need the Node of the project, and an older one would only name
// something that it lacks. `npm start` fetches that Node by itself.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isAtLeast, lowestMajor } from './lib/node-runtime.mjs';
import { root, runScript, UserError } from './lib/root.mjs';

await runScript('npm run build', () => {
  const major = lowestMajor(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).engines.node);
  if (!isAtLeast(process.versions.node, major))
    throw new UserError(
      `Node.js ${major} or newer is needed, and this is ${process.versions.node}: see docs/how-to/one-machine.md, or run "npm start", which takes its own`,
    );
  return 0;
});
