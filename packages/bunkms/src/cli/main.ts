#!/usr/bin/env node
import { nodeFault } from '@bundoc/shared/process/node-version';

const fault = nodeFault();
if (fault === undefined) {
  const { runBunkms } = await import('./program.ts');
  process.exitCode = await runBunkms(process.argv.slice(2), process.env);
} else {
  console.error(`bunkms: ${fault}`);
  process.exitCode = 2;
}
