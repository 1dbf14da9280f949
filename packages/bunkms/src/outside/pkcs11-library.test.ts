import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { runNode } from '@bundoc/shared/testing/node-process';
import type { PKCS11 } from 'pkcs11js';
import { expect, expectTypeOf, it, onTestFinished } from 'vitest';
import type { Pkcs11Library } from './pkcs11-library.ts';

/** A file of an installation, with a package of this name if it has an index. */
function installation(index?: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'bunkms-pkcs11-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const installed = join(folder, 'node_modules', 'pkcs11js');
  mkdirSync(installed, { recursive: true });
  if (index === undefined) rmSync(join(folder, 'node_modules'), { recursive: true });
  else writeFileSync(join(installed, 'index.js'), index);
  return pathToFileURL(join(folder, 'main.js')).href;
}

/** Why the module cannot be loaded there. In a process of its own: NODE_PATH of this one has all packages. */
async function causeIn(from: string): Promise<unknown> {
  const library = new URL('./pkcs11-library.ts', import.meta.url).href;
  const program = `import { loadLibrary } from ${JSON.stringify(library)};
    try { loadLibrary('/none.so', ${JSON.stringify(from)}); }
    catch ({ name, fault, message, remedy }) { console.log(JSON.stringify({ name, fault, message, remedy })); }`;
  const { stdout } = await runNode(['--input-type=module', '--eval', program], {});
  return JSON.parse(stdout);
}

it('names the command that installs the optional package when it is missing', async () => {
  expect(await causeIn(installation())).toEqual({
    name: 'Pkcs11Error',
    fault: 'unavailable',
    message: 'the package pkcs11js is not installed',
    remedy: 'run "npm install pkcs11js" in the folder of bunkms',
  });
});

it('names the command that builds the optional package when it was installed without its addon', async () => {
  // As the package does it.
  const index = 'module.exports = require("./build/Release/pkcs11.node");';
  expect(await causeIn(installation(index))).toEqual({
    name: 'Pkcs11Error',
    fault: 'unavailable',
    message: 'the package pkcs11js is not built',
    remedy: 'run "npm rebuild pkcs11js" in the folder of bunkms',
  });
});

it('declares the part of the optional package that it uses as the package does', () => {
  // Checked by the compiler.
  expectTypeOf<PKCS11>().toExtend<Pkcs11Library>();
});
