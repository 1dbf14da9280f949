import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { pages } from './lib/prose.mjs';

const root = join(import.meta.dirname, '..');
const lines = pages().flatMap((page) =>
  readFileSync(join(root, page), 'utf8')
    .split('\n')
    .map((line) => `${page}: ${line}`),
);

/** A reader may repeat a page, or paste a whole block although a command in it fails. */
describe('the commands of the pages', () => {
  it('make a KEK only where no file is', () => {
    const making = lines.filter((line) => /openssl rand -base64 32 > /.test(line));
    expect(making.length).toBeGreaterThanOrEqual(4);
    expect(making.filter((line) => !/set -C;|mkdir run\/kek &&/.test(line))).toEqual([]);
  });

  it('leave one KEK alone in the ring only once the former one is retired', () => {
    const replacing = lines.filter((line) => /\bcp \S+ data\/dev\/kek$/.test(line));
    expect(replacing.length).toBeGreaterThanOrEqual(2);
    expect(replacing.filter((line) => !/kek retire .* && cp /.test(line))).toEqual([]);
  });
});
