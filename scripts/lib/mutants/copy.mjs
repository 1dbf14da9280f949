import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { mutate } from './make.mjs';

const LEFT_OUT = new Set(['.git', '.pnpm', '.cache', '.vite', '.vite-temp', '.vitest-cache', 'data']);

/**
 * A copy of the repository for mutants, so that the repository itself is never changed. It shares the
 * installed packages, but not those of the workspace.
 * @param {string} root
 */
export function copyRepository(root) {
  const copy = mkdtempSync(join(tmpdir(), 'mutants-'));
  cpSync(root, copy, {
    recursive: true,
    verbatimSymlinks: true,
    filter: (path) =>
      !relative(root, path)
        .split('/')
        .some((name) => LEFT_OUT.has(name)),
  });
  mkdirSync(join(copy, 'node_modules'), { recursive: true });
  symlinkSync(join(root, 'node_modules', '.pnpm'), join(copy, 'node_modules', '.pnpm'));
  return {
    root: copy,
    /**
     * Runs the work with the mutant in place, and always removes it afterwards.
     * @template T
     * @param {import('./make.mjs').Mutant} mutant
     * @param {() => Promise<T>} work
     * @returns {Promise<T>}
     */
    async withMutant(mutant, work) {
      const path = join(copy, mutant.file);
      const source = readFileSync(path, 'utf8');
      writeFileSync(path, mutate(source, mutant));
      try {
        return await work();
      } finally {
        writeFileSync(path, source);
      }
    },
    [Symbol.dispose]() {
      rmSync(copy, { recursive: true, force: true });
    },
  };
}
