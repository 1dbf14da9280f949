// npm run -s bunkms -- kek status
//
// Runs any command of bunkms on the dev setup of `npm start`, with the Node version that the project needs.

import { bunkmsOfDevSetup } from './lib/dev-command.mjs';
import { runScript } from './lib/root.mjs';

await runScript('npm run bunkms', () => bunkmsOfDevSetup(process.argv.slice(2)));
