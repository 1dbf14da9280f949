// npm run -s bunkms -- kek status
//
// Runs any command of bunkms on the dev setup that `npm start` made, with the Node that the project asks for.

import { bunkmsOfDevSetup } from './lib/dev-command.mjs';
import { runScript } from './lib/root.mjs';

await runScript('npm run bunkms', () => bunkmsOfDevSetup(process.argv.slice(2)));
