import { settledState } from '@bundoc/shared/contract/log-folder';
import { expect, it } from 'vitest';
import { CliProject } from '../../testing/cli-project.ts';
import type { SimulatedDisk } from '../../testing/simulated-disk.ts';
import { closeEngine } from '../../testing/test-engine.ts';
import { put } from '../../testing/writes.ts';

/** The state of the log as BunKMS reads it. */
function stateOf(disk: SimulatedDisk): ReturnType<typeof settledState> {
  const names = [...disk.files().keys()].filter((path) => path.startsWith('/log/'));
  return settledState({
    list: () => names.map((path) => path.slice('/log/'.length)),
    readStart: (name, bytes) => disk.files().get(`/log/${name}`)?.subarray(0, bytes),
  });
}

it('an engine that closes durably marks its log as settled when all new projects have their files', async () => {
  const project = new CliProject();
  const disk = CliProject.disk();
  const store = await project.open(disk);
  await store.commit([put('a', '{}')]);
  await store[Symbol.asyncDispose]();
  expect(stateOf(disk)).toBe('unsettled');
  await closeEngine(disk);
  expect(stateOf(disk.powerCut('synced only'))).toBe('settled');
});
