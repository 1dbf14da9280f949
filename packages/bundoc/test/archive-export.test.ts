import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
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
  return { folder, keys, moments, run };
}

async function drill(folder: ArchivedFolder, sample: number) {
  const exporter = { exportKey: (name: string, version?: number) => folder.keys.exportKey(name, version) };
  let failure: unknown;
  const captured = await capturedRun(async () => {
    const of = (archive: Parameters<typeof drillArchive>[0]) =>
      drillArchive(archive, { sample, keys: exporter, dataDir: folder.path('data') }, { json: true });
    await withArchive({}, { from: folder.archive }, of).catch((error: unknown) => {
      failure = error;
    });
    return 0;
  });
  return { ...JSON.parse(captured.stdout), failure };
}

function drilledMs(folder: ArchivedFolder): number | undefined {
  try {
    return JSON.parse(readFileSync(join(folder.path('data'), 'archive', 'drill.json'), 'utf8')).endedMs;
  } catch {
    return undefined;
  }
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
  const { folder, keys, moments } = await makeArchive();
  const all = await drill(folder, 10);
  expect(all).toMatchObject({ restored: 2, unfinished: 0, documents: 3, findings: [], noted: true });
  expect(drilledMs(folder)).toBeGreaterThan(0);
  expect(all).toMatchObject({ moment: new Date(moments[1] ?? 0).toISOString(), failure: undefined });
  expect((await drill(folder, 1)).opened).toHaveLength(1);
  rmSync(join(folder.path('data'), 'archive', 'drill.json'));
  keys.failure = new AppError('key_damaged');
  expect(await drill(folder, 1)).toMatchObject({
    findings: [{ part: expect.any(String) }],
    failure: { exitCode: 1 },
    noted: false,
  });
  expect(drilledMs(folder)).toBeUndefined();
});

it('does not call a drill good that had nothing to open', async () => {
  const folder = new ArchivedFolder(new FakeClock());
  await folder.with('data', async (open) => {
    await open.ship();
  });
  expect(await drill(folder, 1)).toMatchObject({ restored: 0, noted: false, failure: { exitCode: 1 } });
});
