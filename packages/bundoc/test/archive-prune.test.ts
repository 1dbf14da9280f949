import { cpSync, rmSync } from 'node:fs';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { describe, expect, it } from 'vitest';
import { runBundoc } from '../src/cli/program.ts';
import { ArchivedFolder } from './support/archived-folder.ts';

const DAY_MS = 86_400_000;

const archive = (args: readonly string[]) =>
  capturedRun(() => runBundoc(['archive', ...args], { NODE_ENV: 'test' }));

function iso(ms: number | undefined): string {
  return new Date(ms ?? 0).toISOString();
}

/** A moment each day, with a round of its own. */
async function fiveDays() {
  const clock = new FakeClock();
  const folder = new ArchivedFolder(clock);
  const moments: number[] = [];
  const day = async (name: string) => {
    await folder.with('data', async (open) => {
      await open.put('acme', 'a', name);
      moments.push(await open.ship());
    });
    clock.advance(DAY_MS + 1_000);
  };
  for (let at = 0; at < 5; at++) await day(`day ${at}`);
  return { clock, folder, moments, day, from: ['--from', folder.archive] };
}

async function restored(folder: ArchivedFolder, at: number | undefined, to: string): Promise<unknown> {
  const args = ['restore', '--from', folder.archive, '--to', folder.path(to), '--at', iso(at)];
  const { code, stderr } = await archive(args);
  expect(code, stderr).toBe(0);
  let text: unknown;
  await folder.with(to, async (open) => {
    text = await open.read('acme', 'a');
  });
  return text;
}

describe('bundoc archive prune', () => {
  it('says what it deletes, and keeps every moment from the limit on', async () => {
    const { folder, moments, from } = await fiveDays();
    const before = folder.objects();
    const limit = ['--before', iso((moments[2] ?? 0) + 500)];
    const planned = await archive(['prune', ...from, ...limit, '--dry-run', '--json']);
    expect(planned.code, planned.stderr).toBe(0);
    const plan = JSON.parse(planned.stdout);
    expect(plan).toMatchObject({ dry_run: true, kept_from: iso(moments[2]) });
    expect(plan.objects).toBeGreaterThan(0);
    expect(folder.objects()).toEqual(before);

    const pruned = await archive(['prune', ...from, ...limit]);
    expect(pruned.code, pruned.stderr).toBe(0);
    expect(pruned.stderr).toContain(`deleting ${plan.objects} object`);
    expect(pruned.stdout).toContain(`each moment from ${iso(moments[2])} on stays`);
    expect(folder.objects()).toEqual(before.slice(plan.objects));
    for (let at = 2; at < 5; at++) expect(await restored(folder, moments[at], `to-${at}`)).toBe(`day ${at}`);

    const again = await archive(['prune', ...from, ...limit, '--json']);
    expect(JSON.parse(again.stdout)).toMatchObject({ objects: 0, bytes: 0 });
  });

  it('leaves an archive that verify and list take for whole, and that names its first moment', async () => {
    const { folder, moments, from, day } = await fiveDays();
    expect((await archive(['prune', ...from, '--before', iso(moments[3])])).code).toBe(0);
    const verified = await archive(['verify', ...from]);
    expect(verified.code, verified.stderr).toBe(0);
    expect(verified.stdout).toContain(`pruned before ${iso(moments[3])}`);
    const { chains } = JSON.parse((await archive(['list', ...from, '--json'])).stdout);
    expect(chains).toMatchObject([{ pruned: true, missing: 0, restorable_from: iso(moments[3]) }]);
    for (const [name, at] of [
      ['gone', moments[1]],
      ['just gone', (moments[3] ?? 0) - 1],
    ] as const) {
      const refused = await archive(['restore', ...from, '--to', folder.path(name), '--at', iso(at)]);
      expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining(iso(moments[3])) });
    }

    await day('day 5');
    const { newest_restorable, findings } = JSON.parse((await archive(['verify', ...from, '--json'])).stdout);
    expect([newest_restorable, findings]).toEqual([iso(moments[5]), []]);
    expect(await restored(folder, moments[5], 'last')).toBe('day 5');
  });

  it('refuses when the newest chain has lost its beginning, since the one before may be needed', async () => {
    const { folder, moments, from, day } = await fiveDays();
    const former = folder.objects();
    rmSync(folder.path('data/archive/position.json'));
    await day('day 5');
    await day('day 6');
    const [begun = ''] = folder.objects().filter((path) => !former.includes(path));
    rmSync(begun);
    const left = folder.objects();
    const refused = await archive(['prune', ...from, '--before', iso((moments.at(-1) ?? 0) + DAY_MS)]);
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('that stay are missing') });
    expect(folder.objects()).toEqual(left);
  });

  it('lets an older copy of the data folder begin a chain, since what it continued is gone', async () => {
    const { clock, folder, moments, from, day } = await fiveDays();
    cpSync(folder.path('data'), folder.path('copy'), { recursive: true });
    for (let at = 5; at < 9; at++) await day(`day ${at}`);
    expect((await archive(['prune', ...from, '--before', iso(moments[7])])).code).toBe(0);
    let last = 0;
    await folder.with('copy', async (open) => {
      await open.put('acme', 'a', 'of the copy');
      last = await open.ship();
    });
    expect(last).toBe(clock.now());
    expect(await restored(folder, last, 'of-copy')).toBe('of the copy');
  });

  it('never deletes the newest round, however short the time', async () => {
    const { folder, moments, from } = await fiveDays();
    expect((await archive(['prune', ...from, '--keep', '0h'])).code).toBe(0);
    expect(await restored(folder, moments[4], 'restored')).toBe('day 4');
  });

  it('deletes a former chain as a whole, once the newest one has the limit', async () => {
    const { clock, folder, moments, from } = await fiveDays();
    const former = folder.objects();
    expect(await restored(folder, moments[4], 'other')).toBe('day 4');
    await folder.with('other', async (open) => {
      await open.put('acme', 'a', 'on the other machine');
      moments.push(await open.ship());
    });
    clock.advance(DAY_MS);
    const early = await archive(['prune', ...from, '--before', iso((moments[5] ?? 0) - 1)]);
    expect(early.code, early.stderr).toBe(0);
    expect(await restored(folder, (moments[5] ?? 0) - 1, 'between')).toBe('day 4');
    expect((await archive(['prune', ...from, '--before', iso((moments[5] ?? 0) + 1)])).code).toBe(0);
    expect(folder.objects().filter((path) => former.includes(path))).toEqual([]);
    expect((await archive(['verify', ...from])).code).toBe(0);
    expect(await restored(folder, moments[5], 'restored')).toBe('on the other machine');
  });

  it('wants one limit, in a form that it knows', async () => {
    const { from } = await fiveDays();
    for (const limit of [[], ['--keep', '1d', '--before', iso(0)], ['--keep', '30']]) {
      const refused = await archive(['prune', ...from, ...limit]);
      expect(refused).toMatchObject({ code: 2, stderr: expect.stringMatching(/--keep|12h, 30d or 8w/) });
    }
  });

  it('deletes nothing while an object is missing that stays', async () => {
    const { folder, moments, from } = await fiveDays();
    await folder.with('data', async (open) => {
      for (const name of ['one', 'two', 'three']) {
        await open.put('acme', 'a', name);
        await open.ship();
      }
    });
    rmSync(folder.objects().at(-2) ?? '');
    const objects = folder.objects();
    const refused = await archive(['prune', ...from, '--before', iso(moments[2])]);
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('is damaged') });
    expect(folder.objects()).toEqual(objects);
  });
});
