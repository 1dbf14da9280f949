import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';

const dist = join(import.meta.dirname, '..', 'dist');
/** Maximum size of the first load, and of the editor, which is loaded on demand; bytes of gzip. */
const FIRST_LOAD_MAX = 60_000;
const EDITOR_MAX = 120_000;

interface Manifest {
  readonly files: readonly { readonly path: string; readonly encodings: readonly string[] }[];
}

const read = (path: string) => readFileSync(join(dist, path), 'utf8');
const gzipped = (paths: Iterable<string>) =>
  [...paths].reduce((sum, path) => sum + gzipSync(read(path), { level: 9 }).length, 0);

/** The assets of a page, with their static imports. */
function firstLoadOf(page: string): Set<string> {
  const found = new Set([page]);
  for (const path of found) {
    const text = read(path);
    const named = path.endsWith('.html')
      ? text.matchAll(/(?:src|href)="\/console\/(assets\/[^"]+)"/g)
      : text.matchAll(/(?:from|import)\s*"\.\/([^"]+)"/g);
    for (const [, name = ''] of named) found.add(name.startsWith('assets/') ? name : `assets/${name}`);
  }
  return found;
}

/** Scripts that are loaded with the first editor: all except those of every page. */
function editorFiles(): string[] {
  const { files } = JSON.parse(read('manifest.json')) as Manifest;
  const first = new Set([...firstLoadOf('bundoc.html'), ...firstLoadOf('bunkms.html')]);
  const lazy = files.map(({ path }) => path).filter((path) => path.endsWith('.js') && !first.has(path));
  return lazy.filter((path) => !/completion|draw/.test(path));
}

describe('the build of the console', () => {
  it('exists', () => {
    expect(existsSync(join(dist, 'manifest.json')), 'run node packages/console/build.mjs').toBe(true);
  });

  it.each(['bundoc.html', 'bunkms.html'])('loads %s with at most 60 kB', (page) => {
    const files = firstLoadOf(page);
    expect([...files].filter((path) => path.endsWith('.js')).length).toBeGreaterThan(0);
    expect([...files].filter((path) => path.endsWith('.css'))).toHaveLength(1);
    expect(gzipped(files)).toBeLessThan(FIRST_LOAD_MAX);
  });

  it('loads the editor with at most 120 kB', () => {
    const files = editorFiles();
    expect(files.some((path) => path.includes('code-mirror'))).toBe(true);
    expect(gzipped(files)).toBeLessThan(EDITOR_MAX);
  });

  it('has nothing inline and names no other origin in its pages', () => {
    for (const page of ['bundoc.html', 'bunkms.html']) {
      const text = read(page);
      expect(text).not.toMatch(/<style|style=|\son[a-z]+=|<script(?![^>]*src=)/);
      expect([...text.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, target]) => target)).toSatisfy(
        (targets: string[]) => targets.every((target) => target.startsWith('/')),
      );
    }
  });

  it('is compressed', () => {
    const { files } = JSON.parse(read('manifest.json')) as Manifest;
    for (const { path, encodings } of files) {
      expect(encodings, path).toEqual(['br', 'gzip']);
      expect(existsSync(join(dist, `${path}.br`)) && existsSync(join(dist, `${path}.gz`)), path).toBe(true);
    }
  });
});
