import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

const modules = join(import.meta.dirname, '../../node_modules');

/**
 * Compiles the programs of a folder as strictly as an application may, and writes nothing but its
 * `tsconfig.json`.
 *
 * @param options of the compiler, besides the strict ones.
 * @throws an error with the faults as `stdout`.
 */
export function compile(folder: string, options: object): void {
  const compilerOptions = {
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    noEmit: true,
    module: 'nodenext',
    target: 'es2024',
    types: ['node'],
    typeRoots: [join(modules, '@types')],
    skipLibCheck: true,
    allowImportingTsExtensions: true,
    ...options,
  };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions }));
  execFileSync(join(modules, '.bin/tsc'), ['-p', folder, '--pretty', 'false'], { encoding: 'utf8' });
}
