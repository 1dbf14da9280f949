import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');
const textOf = (page: string) => readFileSync(join(root, page), 'utf8');
const numberOf = (text = '') => Number(text.replaceAll(',', ''));

/** The section of the README with what is not there yet, or not at all. */
const status = /^## Status and limits\n([\s\S]*?)^## /m.exec(textOf('README.md'))?.[1] ?? '';

describe('"Status and limits" of the README', () => {
  it('says that nothing is released, as long as the changelog has no version', () => {
    const isReleased = /^## \[?\d/m.test(textOf('CHANGELOG.md'));
    expect(status.includes('No release, image or package has been published')).toBe(!isReleased);
    const { version } = JSON.parse(textOf('package.json')) as { version: string };
    expect(status).toContain(`Version ${version} `);
  });

  it('has the sizes that the reference has', () => {
    expect(status).toContain('a document has at most 1 MiB, a batch at most 500 operations');
    expect(textOf('docs/operations/limits.md')).toMatch(
      /^\| a document \| 1 MiB,[^\n]*\n\| a batch \| 500 operations,/m,
    );
    expect(status).toContain('one reads at most 100,000 documents');
    expect(textOf('docs/query.md')).toContain('A request reads up to 100,000 documents');
  });

  it('claims no speed above the one that was measured', () => {
    const speed = textOf('docs/operations/speed.md');
    const [, documents, queries] =
      /([\d,]+) documents a second in batches, ([\d,]+) indexed queries a second/.exec(status) ?? [];
    const [, batches] = /^\| batches of 100 creates[^|]*\|[^|]*\| ([\d,]+)/m.exec(speed) ?? [];
    const [, indexed] = /^\| indexed query for 20 of 100k documents \|[^|]*\| ([\d,]+)/m.exec(speed) ?? [];
    expect([numberOf(documents), numberOf(queries)]).not.toContain(Number.NaN);
    expect(numberOf(documents)).toBeGreaterThan(0);
    expect(numberOf(documents)).toBeLessThanOrEqual(numberOf(batches));
    expect(numberOf(queries)).toBeLessThanOrEqual(numberOf(indexed));
  });
});
