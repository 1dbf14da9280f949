import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { openArchive, sealArchive } from '../src/recovery/archive.ts';
import { DamagedFile } from '../src/recovery/errors.ts';
import { readArchive } from '../src/recovery/read-archive.ts';
import { sourceOf, vaultOf } from './support/recovery.ts';

const golden = (name: string) => readFileSync(new URL(`golden/${name}`, import.meta.url));
const vault = vaultOf(JSON.parse(golden('backup-2.golden.json').toString()).kek);
async function allOf<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

const lines = await allOf(openArchive(vault, sourceOf(golden('backup-2.golden.bin'))));

/** The kinds of the items in a backup with these lines, sealed as a backup is. */
async function kindsIn(texts: readonly string[]): Promise<string[]> {
  async function* all() {
    yield* texts;
  }
  const sealed = Buffer.concat(await allOf(sealArchive(vault, all())));
  const items = await allOf(readArchive(vault, sourceOf(sealed)));
  return items.map(({ kind }) => kind);
}

const kindOf = (text: string) => JSON.parse(text)[0] as string;
const kindsOf = (texts: readonly string[]) => texts.map(kindOf).join(' ');
const place = fc.nat(lines.length - 1);

describe('a genuine backup', () => {
  it('is read in its order', async () => {
    const kinds = lines.map(kindOf);
    expect(await kindsIn(lines)).toEqual(
      kinds.filter((kind) => kind !== 'version').map((kind) => (kind === 'archive' ? 'head' : kind)),
    );
    expect(new Set(kinds).size).toBe(7);
  });

  it('a genuine backup with one line in a place of another kind is refused', async () => {
    await fc.assert(
      fc.asyncProperty(place, place, async (from, to) => {
        const moved = lines.toSpliced(from, 1).toSpliced(to, 0, String(lines[from]));
        fc.pre(kindsOf(moved) !== kindsOf(lines));
        await expect(kindsIn(moved)).rejects.toBeInstanceOf(DamagedFile);
      }),
      { numRuns: 300 },
    );
  });

  it('a genuine backup with one line left out or repeated is refused', async () => {
    for (const [at, text] of lines.entries())
      for (const changed of [lines.toSpliced(at, 1), lines.toSpliced(at, 0, text)])
        await expect(kindsIn(changed), `${at}: ${kindOf(text)}`).rejects.toBeInstanceOf(DamagedFile);
  });
});
