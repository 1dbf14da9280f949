#!/usr/bin/env node
import { runBunkms } from './program.ts';

process.exitCode = await runBunkms(process.argv.slice(2), process.env);
