// npm run -s token -- --typ client --sub app --scope "docs:read docs:write" --project project-a
//
// Prints a token of the dev setup that `npm start` made, and nothing else; also while the services run.

import { bunkmsOfDevSetup } from './lib/dev-command.mjs';
import { runScript } from './lib/root.mjs';

await runScript('npm run token', () => bunkmsOfDevSetup(['token', 'issue', ...process.argv.slice(2)]));
