import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { loadJsonSchemaSuite } from './json-schema-suite.ts';
import { loadWycheproof, vectorsFolder } from './wycheproof.ts';

const folder = mkdtempSync(join(tmpdir(), 'wycheproof-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('the loader of published vectors', () => {
  it('finds a folder only when it has every file that tests read', () => {
    const partial = join(folder, 'partial');
    mkdirSync(partial);
    writeFileSync(join(partial, 'aes_gcm_test.json'), '{}');
    expect(vectorsFolder({ WYCHEPROOF_DIR: folder })).toBeUndefined();
    expect(vectorsFolder({ WYCHEPROOF_DIR: partial })).toBeUndefined();
  });

  it('refuses an incomplete JSON Schema Test Suite', () => {
    const few = join(folder, 'few');
    mkdirSync(join(few, 'json-schema-2020-12'), { recursive: true });
    writeFileSync(join(few, 'json-schema-2020-12', 'type.json'), '[]');
    expect(() => loadJsonSchemaSuite(few)).toThrow(/1 of 46 files/);
  });

  it('refuses a file with fewer tests than it announces', () => {
    writeFileSync(
      join(folder, 'cut.json'),
      JSON.stringify({ numberOfTests: 2, testGroups: [{ tests: [{}] }] }),
    );
    writeFileSync(join(folder, 'empty.json'), JSON.stringify({ numberOfTests: 0, testGroups: [] }));
    expect(() => loadWycheproof('cut.json', folder)).toThrow();
    expect(() => loadWycheproof('empty.json', folder)).toThrow();
  });
});
