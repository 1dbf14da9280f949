import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { bunkmsProcess } from '../packages/bunkms/test/support/process.ts';
import { bundocProcess } from './support/bundoc-command.ts';
import { call, Installation } from './support/installation.ts';

const root = join(import.meta.dirname, '..');
const manifests = ['package.json', ...globSync('packages/*/package.json', { cwd: root })];
const versions = manifests.map(
  (path) => (JSON.parse(readFileSync(join(root, path), 'utf8')) as { version: string }).version,
);
const [version = ''] = versions;

it('all packages have the same version', () => {
  expect(versions).toHaveLength(6);
  expect(new Set(versions).size).toBe(1);
  expect(version).toMatch(/^\d+\.\d+\.\d+$/);
});

it('both services report the version of the packages everywhere', async () => {
  await using installation = await Installation.start({ isOnFiles: true });
  const { url, kms, log } = installation;
  for (const service of [url, kms.apiUrl, kms.internalUrl]) {
    expect((await call(service, '/health')).json()).toEqual({ status: 'ok', version });
    expect((await call(service, '/openapi.json')).json()['info']).toMatchObject({ version });
  }
  const info = (name: string) =>
    `${name}_build_info{version="${version}",node_version="${process.versions.node}"} 1`;
  expect(await installation.metrics()).toContain(info('bundoc'));
  expect((await call(kms.internalUrl, '/metrics')).text).toContain(info('bunkms'));
  const records = log.text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(records.filter((record) => record['version'] === version).map(({ service }) => service)).toEqual([
    'bunkms',
    'bundoc',
  ]);
});

it('both commands print the version of the packages', async () => {
  for (const command of [bundocProcess({}, ['--version']), bunkmsProcess({}, '--version')])
    expect(await command).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
});
