import { nextTurn } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { definitionsState, digestOfRevs, NO_DEFINITIONS } from '../engine/port/definitions-state.ts';
import type { ProjectStore } from '../engine/port/port.ts';
import { newPlace, openInstances } from '../testing/open-instances.ts';
import { openTestStore } from '../testing/test-engine.ts';
import { ASKED_TOGETHER, ProjectUpkeep, type ProjectUpkeepOptions, SWEPT_MAX } from './project-upkeep.ts';

/**
 * Projects whose definitions other processes may change, so that upkeep reads them again. The test may block
 * a step.
 */
function start(options: Partial<ProjectUpkeepOptions> = {}) {
  const place = newPlace();
  const { clock, disk } = place;
  const looks: string[] = [];
  const closed: string[] = [];
  const steps: { beforeLook: (project: string) => Promise<void> } = { beforeLook: async () => undefined };
  const opened = openInstances(place, {
    idleTtlMs: 1_000,
    openStore: async (project, opening) => {
      const store: ProjectStore = await openTestStore(project, `/projects/${project}`, disk, opening, clock);
      const { list } = store;
      const close = store[Symbol.asyncDispose];
      return Object.assign(store, {
        isShared: true,
        list: async (query: Parameters<typeof list>[0]) => {
          looks.push(project);
          await steps.beforeLook(project);
          return list.call(store, query);
        },
        [Symbol.asyncDispose]: async () => {
          closed.push(project);
          await close.call(store);
        },
      });
    },
  });
  const { instances, logger } = opened;
  const upkeep = new ProjectUpkeep({ instances, logger, resealsMax: 5, ...options });
  return { ...opened, clock, looks, closed, steps, upkeep };
}

describe('the upkeep of open projects', () => {
  it('learns definitions of each project, even if it fails for one', async () => {
    const { write, looks, steps, upkeep } = start();
    await write('a');
    await write('b');
    looks.length = 0;
    steps.beforeLook = async (project) => {
      if (project === 'a') throw new Error('no');
    };
    await upkeep.run();
    expect(looks).toEqual(['a', 'b']);
  });

  it('asks once for all projects what has changed, and reads only those definitions', async () => {
    const none = definitionsState(0, NO_DEFINITIONS);
    const states = new Map([
      ['a', none],
      ['b', none],
    ]);
    const asked: (readonly string[])[] = [];
    const { write, looks, steps, upkeep } = start({
      statesOf: async (projects) => {
        asked.push(projects);
        return new Map(states);
      },
    });
    await write('a');
    await write('b');
    const looksOf = async () => {
      looks.length = 0;
      await upkeep.run();
      return [...looks];
    };
    expect(await looksOf()).toEqual([]);
    // Read until the read state is the current one, even if reading fails.
    states.set('b', definitionsState(0, digestOfRevs(['00'])));
    expect([await looksOf(), await looksOf()]).toEqual([['b'], ['b']]);
    steps.beforeLook = () => Promise.reject(new Error('no'));
    expect(await looksOf()).toEqual(['b']);
    states.set('b', none);
    expect(await looksOf()).toEqual([]);
    // A removed project is noticed by reading.
    states.delete('a');
    expect(await looksOf()).toEqual(['a']);
    expect(asked).toHaveLength(6);
    expect(asked.every((projects) => projects.join() === 'a,b')).toBe(true);
  });

  it('asks about a bounded number of projects at a time, and about each once', async () => {
    const names = Array.from({ length: 2 * ASKED_TOGETHER + 10 }, (_, n) => `p${n}`);
    const state = definitionsState(0, NO_DEFINITIONS);
    const asked: (readonly string[])[] = [];
    const { logger } = openInstances(newPlace());
    const instances = {
      size: names.length,
      instanceIfOpen: () => ({ store: { definitionsState: state } }),
      projectsInNeed: (need: string) => (need === 'definitions' ? names : []),
      eachInNeed: () => {
        throw new Error('no project has changed');
      },
    };
    const statesOf = async (projects: readonly string[]) => {
      asked.push(projects);
      return new Map(projects.map((project) => [project, state]));
    };
    const upkeep = new ProjectUpkeep({ instances: instances as never, logger, resealsMax: 5, statesOf });
    await upkeep.run();
    expect(asked.map((projects) => projects.length)).toEqual([ASKED_TOGETHER, ASKED_TOGETHER, 10]);
    expect(asked.flat()).toEqual(names);
  });

  it('visits no project without needs', async () => {
    const place = newPlace();
    const { instances, logger, write } = openInstances(place);
    await write('a');
    expect([...instances.eachInNeed('definitions'), ...instances.eachInNeed('reseal')]).toEqual([]);
    using lease = await instances.acquire('a', 'existing');
    await lease?.store.define(
      'notes',
      { indexes: [], ttl: { field: '_created', seconds: 1 } },
      { kind: 'none' },
    );
    expect([...instances.eachInNeed('expiry')].map(({ project }) => project)).toEqual(['a']);
    place.clock.advance(2_000);
    const upkeep = new ProjectUpkeep({ instances, logger, resealsMax: 5 });
    await upkeep.run();
    await lease?.store.define('notes', undefined, { kind: 'none' });
    await upkeep.run();
    expect([...instances.eachInNeed('expiry')]).toEqual([]);
  });

  it('re-seals all documents of a project before it begins with another one', async () => {
    const left = new Map([
      ['a', 6],
      ['b', 1],
    ]);
    const resealed: string[] = [];
    const storeOf = (project: string) => ({
      get pendingReencryption() {
        return left.get(project);
      },
      reseal: async (max: number) => {
        resealed.push(project);
        const rest = Math.max(0, (left.get(project) ?? 0) - max);
        left.set(project, rest);
        return { resealed: max, skipped: 0, goesOn: true };
      },
    });
    const inNeed = () => [...left].filter(([, documents]) => documents > 0).map(([project]) => project);
    const instances = {
      size: left.size,
      instanceIfOpen: () => undefined,
      projectsInNeed: (need: string) => (need === 'reseal' ? inNeed() : []),
      *eachInNeed(_need: string, projects: readonly string[]) {
        for (const project of projects) yield { project, store: storeOf(project) };
      },
    };
    const { logger } = openInstances(newPlace());
    const upkeep = new ProjectUpkeep({ instances: instances as never, logger, resealsMax: 5 });
    for (let run = 0; run < 3; run++) await upkeep.run();
    expect([resealed, inNeed()]).toEqual([['a', 'a', 'b'], []]);
  });

  it('sweeps a bounded number of projects for expired documents in each run, and all in turn', async () => {
    const names = Array.from({ length: 2 * SWEPT_MAX + 10 }, (_, n) => `p${n}`);
    const swept: string[] = [];
    const storeOf = (project: string) => ({
      expired: { sweepRound: async () => swept.push(project) - swept.length },
    });
    const instances = {
      size: names.length,
      instanceIfOpen: () => undefined,
      projectsInNeed: (need: string) => (need === 'expiry' ? names : []),
      *eachInNeed(_need: string, projects: readonly string[]) {
        for (const project of projects) yield { project, store: storeOf(project) };
      },
    };
    const { logger } = openInstances(newPlace());
    const upkeep = new ProjectUpkeep({ instances: instances as never, logger, resealsMax: 5 });
    const runs: string[][] = [];
    for (let run = 0; run < 3; run++) {
      swept.length = 0;
      await upkeep.run();
      runs.push([...swept]);
    }
    expect(runs.map((run) => run.length)).toEqual([SWEPT_MAX, SWEPT_MAX, SWEPT_MAX]);
    expect(runs.flat().slice(0, names.length)).toEqual(names);
    expect(runs.flat().at(names.length)).toBe('p0');
  });

  it('learns definitions by others while one project, or another step, is slow', async () => {
    const { write, looks, steps, upkeep } = start({
      rotations: { run: () => new Promise<never>(() => undefined) },
    });
    const projects = Array.from({ length: 12 }, (_, n) => `p${n}`);
    for (const project of projects) await write(project);
    looks.length = 0;
    const held = Promise.withResolvers<void>();
    steps.beforeLook = (project) => (project === 'p0' ? held.promise : Promise.resolve());
    void upkeep.run();
    await expect.poll(() => looks).toEqual(projects);
    held.resolve();
  });

  it('does nothing while it is already running', async () => {
    const { write, looks, steps, upkeep } = start();
    await write('a');
    looks.length = 0;
    const held = Promise.withResolvers<void>();
    steps.beforeLook = () => held.promise;
    const running = upkeep.run();
    await upkeep.run();
    held.resolve();
    await running;
    expect(looks).toEqual(['a']);
  });

  it('keeps a project open while it works on it, and skips one that was closed in the meantime', async () => {
    const { clock, write, instances, looks, closed, steps, upkeep } = start();
    const atWork = ['a', 'b', 'c', 'd'];
    for (const project of [...atWork, 'e']) await write(project);
    looks.length = 0;
    const held = Promise.withResolvers<void>();
    steps.beforeLook = () => held.promise;
    const running = upkeep.run();
    await nextTurn();
    clock.advance(1_000);
    instances.sweep();
    await expect.poll(() => closed).toEqual(['e']);
    held.resolve();
    await running;
    await instances[Symbol.asyncDispose]();
    expect([looks, closed.toSorted()]).toEqual([atWork, [...atWork, 'e']]);
  });
});
