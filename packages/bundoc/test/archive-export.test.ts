import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AppError } from '@bundoc/shared/contract/app-error';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { drillArchive } from '../src/cli/archive-drill.ts';
import { exportFromArchive } from '../src/cli/archive-export.ts';
import { withArchive } from '../src/cli/archive-place.ts';
import { ArchivedFolder } from './support/archived-folder.ts';

/** Other tests have folders in the usual place. */
let place: string;
beforeAll(() => {
  place = mkdtempSync(join(tmpdir(), 'bundoc-export-'));
  vi.stubEnv('TMPDIR', place);
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(place, { recursive: true });
});

async function makeArchive() {
  const clock = new FakeClock();
  const folder = new ArchivedFolder(clock);
  const moments: number[] = [];
  await folder.with('data', async (open) => {
    await open.put('globex', 'z', 'of globex');
    await open.put('acme', 'a', 'first');
    await open.put('acme', 'b', 'second');
    moments.push(await open.ship());
    clock.advance(1_000);
    await open.put('acme', 'a', 'changed');
    moments.push(await open.ship());
  });
  const { keys } = folder;
  const run = async (project: string, atMs?: number) => {
    let failure: unknown;
    const exporter = { exportKey: (name: string, version?: number) => keys.exportKey(name, version) };
    const captured = await capturedRun(async () => {
      const input = { project, atMs, keys: exporter };
      const of = (archive: Parameters<typeof exportFromArchive>[0]) =>
        exportFromArchive(archive, input, { json: true });
      await withArchive({}, { from: folder.archive }, of).catch((error: unknown) => {
        failure = error;
      });
      return 0;
    });
    // That of the archive itself is left.
    expect(readdirSync(place)).toHaveLength(1);
    return { ...captured, failure };
  };
  const drill = async (sample: number) => {
    const exporter = { exportKey: (name: string, version?: number) => keys.exportKey(name, version) };
    let failure: unknown;
    const captured = await capturedRun(async () => {
      const of = (archive: Parameters<typeof drillArchive>[0]) =>
        drillArchive(archive, { sample, keys: exporter }, { json: true });
      await withArchive({}, { from: folder.archive }, of).catch((error: unknown) => {
        failure = error;
      });
      return 0;
    });
    return { ...JSON.parse(captured.stdout), failure };
  };
  return { keys, moments, run, drill };
}

function texts(stdout: string): unknown[] {
  return stdout
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { readonly text: unknown }).text);
}

it('writes the documents of one project as they were at a moment, as NDJSON', async () => {
  const { moments, run } = await makeArchive();
  const early = await run('acme', moments[0]);
  expect(early.failure).toBeUndefined();
  expect(texts(early.stdout)).toEqual(['first', 'second']);
  const { stdout, stderr } = await run('acme');
  expect(texts(stdout)).toEqual(['second', 'changed']);
  expect(JSON.parse(stderr)).toMatchObject({ project: 'acme', documents: 2, unreadable: [] });
  expect(texts((await run('globex')).stdout)).toEqual(['of globex']);
});

it('says that a project did not exist, or that its key was destroyed', async () => {
  const { keys, run } = await makeArchive();
  expect((await run('initech')).failure).toMatchObject({
    message: expect.stringContaining('there was no project initech'),
  });
  keys.failure = new AppError('project_destroyed');
  const { failure, stdout } = await run('acme');
  expect(failure).toMatchObject({ message: expect.stringContaining('permanently destroyed') });
  expect(stdout).toBe('');
});

it('drills: restores everything, and opens as many random projects as it is told', async () => {
  const { keys, moments, drill } = await makeArchive();
  const all = await drill(10);
  expect(all).toMatchObject({ restored: 2, documents: 3, findings: [] });
  expect(all).toMatchObject({ moment: new Date(moments[1] ?? 0).toISOString(), failure: undefined });
  expect((await drill(1)).opened).toHaveLength(1);
  keys.failure = new AppError('key_damaged');
  expect(await drill(1)).toMatchObject({
    findings: [{ part: expect.any(String) }],
    failure: { exitCode: 1 },
  });
});
