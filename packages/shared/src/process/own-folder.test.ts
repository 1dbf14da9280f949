import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { ConfigError } from './config.ts';
import { FIRST_FILES, refuseFolderOf } from './own-folder.ts';

const folder = mkdtempSync(join(tmpdir(), 'own-folder-'));
afterAll(() => rmSync(folder, { recursive: true }));

it('refuses the data folder of the other service, by its variable and path, and no other folder', () => {
  writeFileSync(join(folder, FIRST_FILES.BunKMS), '');
  const refused = () => refuseFolderOf('BunKMS', folder, 'BUNDOC_DATA_DIR');
  expect(refused).toThrow(ConfigError);
  expect(refused).toThrow(`BUNDOC_DATA_DIR: ${folder} is the data folder of BunKMS: name another one`);
  expect(() => refuseFolderOf('Bundoc', folder, 'BUNKMS_DATA_DIR')).not.toThrow();
  expect(() => refuseFolderOf('BunKMS', join(folder, 'none'), 'BUNDOC_DATA_DIR')).not.toThrow();
});
