import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { loadJsonSchemaSuite } from './json-schema-suite.ts';
import { loadWycheproof } from './wycheproof.ts';

const folder = mkdtempSync(join(tmpdir(), 'wycheproof-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('the loader of published vectors', () => {
  it('reports a missing file, so that its tests are skipped and do not pass', () => {
    expect(loadWycheproof('none.json', { WYCHEPROOF_DIR: folder })).toBeUndefined();
  });

  it('fails on a missing file when vectors are required', () => {
    expect(() => loadWycheproof('none.json', { WYCHEPROOF_DIR: folder, REQUIRE_VECTORS: '1' })).toThrow(
      /REQUIRE_VECTORS/,
    );
  });

  it('does the same for the JSON Schema Test Suite, and refuses an incomplete folder', () => {
    expect(loadJsonSchemaSuite({ WYCHEPROOF_DIR: folder })).toBeUndefined();
    expect(() => loadJsonSchemaSuite({ WYCHEPROOF_DIR: folder, REQUIRE_VECTORS: '1' })).toThrow(
      /REQUIRE_VECTORS/,
    );
    const few = join(folder, 'few');
    mkdirSync(join(few, 'json-schema-2020-12'), { recursive: true });
    writeFileSync(join(few, 'json-schema-2020-12', 'type.json'), '[]');
    expect(() => loadJsonSchemaSuite({ WYCHEPROOF_DIR: few })).toThrow(/1 of 46 files/);
  });

  it('refuses a file with fewer tests than it announces', () => {
    writeFileSync(
      join(folder, 'cut.json'),
      JSON.stringify({ numberOfTests: 2, testGroups: [{ tests: [{}] }] }),
    );
    writeFileSync(join(folder, 'empty.json'), JSON.stringify({ numberOfTests: 0, testGroups: [] }));
    expect(() => loadWycheproof('cut.json', { WYCHEPROOF_DIR: folder })).toThrow();
    expect(() => loadWycheproof('empty.json', { WYCHEPROOF_DIR: folder })).toThrow();
  });
});
