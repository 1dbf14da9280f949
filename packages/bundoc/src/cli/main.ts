#!/usr/bin/env node
import { nodeFault } from '@bundoc/shared/process/node-version';

const fault = nodeFault();
if (fault === undefined) {
  const { runBundoc } = await import('./program.ts');
  process.exitCode = await runBundoc(process.argv.slice(2), process.env);
} else {
  console.error(`bundoc: ${fault}`);
  process.exitCode = 2;
}
