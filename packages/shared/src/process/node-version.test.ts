import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { nodeFault } from './node-version.ts';

it.each(['24.0.0', '24.21.0', '26.1.0', '100.0.0'])('Node %s may run the services', (version) => {
  expect(nodeFault(version)).toBeUndefined();
});

it.each(['18.20.4', '20.20.2', '23.11.1', '9.0.0'])(
  'Node %s is refused with a message that names the required version',
  (version) => {
    expect(nodeFault(version)).toBe(`Node.js 24 or newer is needed, and this is ${version}`);
  },
);

it.each(['bundoc/src/main', 'bundoc/src/cli/main', 'bunkms/src/main', 'bunkms/src/cli/main'])(
  '%s loads nothing of its service before the version check',
  (name) => {
    const source = readFileSync(new URL(`../../../${name}.ts`, import.meta.url), 'utf8');
    expect(source).toContain('nodeFault()');
    expect(source).not.toMatch(/^import .*(app|program)\.ts/m);
  },
);
