import { randomInt } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { AppError } from '@bundoc/shared/contract/app-error';
import { LONG } from '@bundoc/shared/testing/long';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it, vi } from 'vitest';
import type { StorageCalls } from '../src/kms/port.ts';
import { put } from '../src/testing/writes.ts';
import { cuts, markOf, moving, useMoves } from './support/moves-with-obstacles.ts';
import { CutShort, HELD } from './support/moving.ts';

/** Indexes of a death at one end and of an absence of BunKMS at the other one. */
const PAIRS = [
  [0, 6],
  [3, 5],
] as const;
/** `MOVE_SEED` repeats the pair that the titles name. */
const SEED = Number(process.env['MOVE_SEED'] ?? randomInt(PAIRS.length));
const PAIR: readonly number[] = PAIRS[SEED % PAIRS.length] ?? PAIRS[0];
/** With LONG_TESTS=1, each cut at each end. Otherwise a pair, which is drawn. */
const CUTS = (['rows', 'files'] as const)
  .flatMap((place) => cuts.map((cut) => ({ place, cut })))
  .filter((_, at) => LONG || PAIR.includes(at))
  .map(({ place, cut }) => [place, cut] as const);
/** Fewer than the steps at the end of a move at which it has taken effect. */
const STRIDE = { rows: 16, files: 8 } as const;

describe('a move', needs('postgresql'), () => {
  useMoves();

  it.each(CUTS)(
    'from %s interrupted at any step (%s) leaves the project complete in one place, and succeeds when it is repeated',
    async (place, cut) => {
      // A step at which a process dies takes seconds, so each run tests some of them.
      const stride = LONG || cut.startsWith('BunKMS') ? 1 : STRIDE[place];
      const first = randomInt(1, stride + 1);
      process.stdout.write(`moves, ${cut}: each ${stride}th step from ${first}\n`);
      let [count, moved] = [0, 0];
      for (let at = first, isCut = true; isCut; at += stride) {
        await moving.next(`cut-${cuts.indexOf(cut)}-${at}`);
        await moving.fill('files');
        const steps = new CutShort(at, cut);
        await moving.move(steps.ports(moving.ports)).catch(() => undefined);
        isCut = steps.isCut;
        const places = [await moving.held('files'), await moving.held('rows')];
        const serving = places.filter((held) => typeof held !== 'string');
        expect([at, places, serving]).toEqual([at, places, [HELD]]);
        if (typeof places[1] !== 'string') moved++;
        if (!isCut) break;
        count++;
        await moving.move();
        const after = [await moving.held('files'), await moving.held('rows')];
        expect([at, after]).toEqual([at, ['project_elsewhere', HELD]]);
        expect(readdirSync(moving.directory)).toEqual(['move.mark']);
      }
      expect(count * stride).toBeGreaterThan(cut.startsWith('BunKMS') ? 4 : 60);
      expect(moved, 'that took effect all the same').toBeGreaterThan(0);
    },
  );

  it('keeps the fence while BunKMS does not say who holds the key, and allows writes again once it does', async () => {
    await moving.fill('files');
    let isAway = false;
    const away = new Proxy<StorageCalls>(moving.service, {
      get: (target, key) => {
        if (key === 'acceptKey') isAway = true;
        const value: unknown = Reflect.get(target, key);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]) =>
          isAway ? Promise.reject(new AppError('kms_unavailable')) : Reflect.apply(value, target, args);
      },
    });
    const ports = { ...moving.ports, calls: away };
    await expect(moving.move(ports)).rejects.toMatchObject({ code: 'kms_unavailable' });
    const storage = await moving.start('files');
    moving.service.failure = new AppError('kms_unavailable');
    const write = async () => {
      const node = await moving.node('files', storage);
      await moving.withStore(node, (store) => store.commit([put('a', '{"again":1}')]));
    };
    await expect(write()).rejects.toMatchObject({ code: 'kms_unavailable' });
    // The key is available, but the outcome of the offer is unknown.
    moving.service.failure = undefined;
    const advance = vi.spyOn(moving.service, 'advanceStorage');
    advance.mockRejectedValue(new AppError('kms_unavailable'));
    await expect(write()).rejects.toMatchObject({ code: 'project_moving' });
    expect(await markOf('files')).toBeDefined();
    advance.mockRestore();
    await write();
    expect(await markOf('files')).toBeUndefined();
    expect(await moving.held('rows')).toBe('project_elsewhere');
  });
});
