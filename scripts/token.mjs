// npm run -s token -- --typ client --sub app --scope "docs:read docs:write" --project project-a
//
// Prints only a token of the dev setup of `npm start`, even while the services run.

import { bunkmsOfDevSetup } from './lib/dev-command.mjs';
import { runScript } from './lib/root.mjs';

await runScript('npm run token', () => bunkmsOfDevSetup(['token', 'issue', ...process.argv.slice(2)]));
