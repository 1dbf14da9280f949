#!/usr/bin/env node
import { runBundoc } from './program.ts';

process.exitCode = await runBundoc(process.argv.slice(2), process.env);
