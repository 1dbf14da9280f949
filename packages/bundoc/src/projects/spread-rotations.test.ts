import { AppError } from '@bundoc/shared/contract/app-error';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { runs } from '@bundoc/shared/testing/long';
import { describe, expect, it } from 'vitest';
import { createSealedCache } from '../engine/files/documents/sealed-cache.ts';
import { limitsAfter, SEAL_LIMITS } from '../engine/port/seal-budget.ts';
import { formatProjectFile } from '../engine/projects/project-file.ts';
import { newPlace, openInstances } from '../testing/open-instances.ts';
import { engineOn } from '../testing/test-engine.ts';
import { ProjectUpkeep } from './project-upkeep.ts';
import { SpreadRotations } from './spread-rotations.ts';

const logger = createLogger({ service: 'bundoc', level: 'silent' });
const PROJECTS = runs(300, 1_000);
const MIB = 1_048_576;
const LIMITS = {
  log: {
    segmentBytes: 4 * MIB,
    segmentsMin: 4,
    segmentsMax: 64,
    frameBytes: MIB,
    chunkBytes: 65_536,
  },
  checkpointBytes: 8 * MIB,
};

describe('rotations of keys that have sealed many times', () => {
  it('are spread after a take-over: at most a hundredth of the projects re-seals at once, and all do in the end', async () => {
    const place = newPlace();
    const { clock, disk } = place;
    await engineOn(disk, { clock, limits: LIMITS });
    const versions = new Map<string, number>();
    const rotations = new SpreadRotations({
      clock,
      logger,
      rotate: (project, version) => opened.keys.rotate(project, version),
    });
    const opened = openInstances(place, {
      openStore: async (project, { cipher, file }) => {
        versions.set(project, cipher.version);
        // A copy of the storage may have sealed under the version from before the take-over.
        const takenOver = cipher.version === 1;
        return (await engineOn(disk, { clock })).openStore({
          project,
          directory: `/projects/${project}`,
          disk,
          cipher,
          clock,
          projectFile: formatProjectFile(file),
          cache: createSealedCache(0),
          onIntegrityError: () => undefined,
          onFailure: () => undefined,
          positionFloor: () => 0,
          onRotationDue: (version) => rotations.due(project, version),
          sealLimits: limitsAfter(SEAL_LIMITS, { takenOver, missing: false }),
        });
      },
    });
    const { instances, write } = opened;
    const upkeep = new ProjectUpkeep({ instances, logger, rotations, resealsMax: 3 });
    const names = Array.from({ length: PROJECTS }, (_, at) => `p${at}`);
    for (const name of names) for (const id of ['a', 'b', 'c']) await write(name, id);
    expect(rotations.waiting).toBe(PROJECTS);

    const atOnce: number[] = [];
    const rotated: number[] = [];
    for (let second = 0; second < 600; second++) {
      clock.advance(1_000);
      const before = rotations.waiting;
      instances.sweep();
      await upkeep.run();
      rotated.push(before - rotations.waiting);
      // Every project is in constant use.
      for (const name of names) (await instances.acquire(name, 'existing'))?.[Symbol.dispose]();
      atOnce.push(instances.projectsInNeed('reseal').length);
      if (rotations.waiting === 0 && atOnce.at(-1) === 0 && [...versions.values()].every((one) => one === 2))
        break;
    }
    process.stdout.write(
      `after a take-over of ${PROJECTS} projects: ${Math.max(...atOnce)} re-sealed at once, ${Math.max(...rotated)} rotated in a second, ${atOnce.length} s for all\n`,
    );
    expect([...versions.values()].every((one) => one === 2)).toBe(true);
    expect(instances.pendingReencryption).toBe(0);
    expect(Math.max(...atOnce)).toBeLessThanOrEqual(PROJECTS / 100);
    expect(Math.max(...rotated)).toBeLessThanOrEqual(PROJECTS / 100);
  });

  it('continue when one key cannot be rotated', async () => {
    const rotations = new SpreadRotations({
      clock: new FakeClock(),
      logger,
      rotate: async (project) => {
        if (project === 'a') throw new AppError('project_disabled');
      },
    });
    for (const project of ['a', 'b', 'c']) rotations.due(project, 1);
    expect(await rotations.run(1)).toEqual([]);
    expect(await rotations.run(9)).toEqual(['b', 'c']);
  });

  it('pause for a minute when BunKMS does not answer, and catch up afterwards', async () => {
    const clock = new FakeClock();
    let isUp = false;
    const asked: string[] = [];
    const rotations = new SpreadRotations({
      clock,
      logger,
      rotate: async (project) => {
        asked.push(project);
        if (!isUp) throw new AppError('kms_unavailable');
      },
    });
    for (const project of ['a', 'b', 'c']) rotations.due(project, 1);
    expect(await rotations.run(1)).toEqual([]);
    isUp = true;
    expect(await rotations.run(9)).toEqual([]);
    clock.advance(60_000);
    expect(await rotations.run(2)).toEqual(['b', 'c']);
    expect(await rotations.run(2)).toEqual(['a']);
    expect(await rotations.run(2)).toEqual([]);
    expect(asked).toEqual(['a', 'b', 'c', 'a']);
  });
});
