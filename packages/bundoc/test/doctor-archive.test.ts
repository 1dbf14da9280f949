import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Checkup } from '@bundoc/shared/cli/checkup';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { startMoto } from '@bundoc/shared/testing/moto-process';
import { needs } from '@bundoc/shared/testing/programs';
import { expect, it } from 'vitest';
import { checkArchive } from '../src/cli/check-archive.ts';
import { runBundoc } from '../src/cli/program.ts';
import { ArchivedFolder } from './support/archived-folder.ts';

const OTHER = '11111111111141118111111111111111';
const KEYS = { AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE', AWS_SECRET_ACCESS_KEY: 'secret' };

async function check(folder: ArchivedFolder, place = folder.archive, clock = folder.clock) {
  const checkup = new Checkup();
  await checkArchive(checkup, { place, dataDir: folder.path('data'), clock }, KEYS);
  return Object.fromEntries(
    checkup.findings.map(({ check: name, verdict, found }) => [
      name.replace('archive ', ''),
      [verdict, found],
    ]),
  );
}

async function shipped(): Promise<ArchivedFolder> {
  const folder = new ArchivedFolder(new FakeClock());
  await folder.with('data', async (open) => {
    await open.put('acme', 'a', 'first');
    await open.ship();
  });
  return folder;
}

it('fails for a place inside of the data folder, which would be lost with it', async () => {
  const folder = await shipped();
  const { place } = await check(folder, folder.path('data/archive'));
  expect(place).toEqual(['fail', expect.stringContaining('must be outside of the data folder')]);
});

it('leaves one object, which no other command takes for one of a storage', async () => {
  const folder = await shipped();
  const before = folder.objects().length;
  for (let time = 0; time < 2; time++) {
    const found = await check(folder);
    expect(Object.entries(found).map(([name, [verdict]]) => `${name} ${verdict}`)).toEqual([
      'put ok',
      'get ok',
      'list ok',
      'storage ok',
    ]);
  }
  expect(folder.objects()).toHaveLength(before + 1);
  for (const args of [['list'], ['verify'], ['restore', '--to', folder.path('restored')]]) {
    const { code, stderr } = await capturedRun(() =>
      runBundoc(['archive', ...args, '--from', folder.archive], { NODE_ENV: 'test' }),
    );
    expect(code, stderr).toBe(0);
  }
});

it('warns of objects of other storages, and names them', async () => {
  const folder = await shipped();
  mkdirSync(`${folder.archive}/${OTHER}`);
  writeFileSync(`${folder.archive}/${OTHER}/x`, '');
  const { storage } = await check(folder);
  expect(storage).toEqual(['warn', expect.stringContaining('11111111-1111-4111-8111-111111111111')]);
});

it('says that a folder is not there, or has other bytes in the place of its object', async () => {
  const folder = await shipped();
  const away = await check(folder, folder.path('nowhere'));
  for (const name of ['put', 'get', 'list'])
    expect(away[name]).toEqual(['fail', expect.stringContaining('mount it, or make it')]);
  expect(away['storage']).toBeUndefined();
  mkdirSync(`${folder.archive}/doctor`);
  writeFileSync(`${folder.archive}/doctor/check`, 'x');
  const other = await check(folder);
  expect(other['put']).toEqual(['fail', expect.stringContaining('other bytes')]);
  expect(other['get']?.[0]).toBe('fail');
});

it('compares the clock of this machine with that of a bucket', async () => {
  const folder = await shipped();
  const server = createServer((request, response) => {
    request.resume();
    response.setHeader('date', new Date(Date.now() - 100_000).toUTCString());
    response.statusCode = 403;
    response.end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const found = await check(folder, `s3://b-1/p?endpoint=http://127.0.0.1:${port}`, systemClock);
  server.closeAllConnections();
  server.close();
  expect(found['put']).toEqual(['fail', expect.stringContaining('403')]);
  expect(found['clock']).toEqual(['fail', expect.stringContaining('behind this machine')]);
});

it('finds no fault in a bucket that works', needs('moto'), async () => {
  await using moto = await startMoto();
  expect((await fetch(`${moto.url}/b-1`, { method: 'PUT' })).status).toBe(200);
  const found = await check(await shipped(), `s3://b-1/one?endpoint=${moto.url}`, systemClock);
  expect(Object.values(found).map(([verdict]) => verdict)).toEqual(['ok', 'ok', 'ok', 'ok', 'ok']);
  expect(found['storage']?.[1]).toContain('no object of a storage yet');
});
