import { describe, expect, it } from 'vitest';
import { openAll } from '../../../testing/log-history.ts';
import { LogWorld, type OpenLogProject } from '../../../testing/log-projects.ts';
import { SimulatedDisk } from '../../../testing/simulated-disk.ts';
import type { Log } from './log.ts';
import { PartsDamaged } from './sealed-part.ts';
import { decodeHeader } from './segment-header.ts';

/** Projects of which the first one fills segments, and the others are only remembered. */
async function made(disk: SimulatedDisk, world: LogWorld) {
  const [log, open] = await openAll(world, disk);
  for (const one of open) {
    await one.commit(world.newCommit(), 300);
    await world.checkpoint(log, disk, one);
  }
  const busy = open[0] as OpenLogProject;
  const fill = async () => {
    await busy.commit(world.newCommit(), 3_000);
    await world.checkpoint(log, disk, busy);
  };
  return { log, open, fill };
}

const outcomesOf = (log: Log, disk: SimulatedDisk, world: LogWorld) =>
  Promise.all(
    world.projects.map((project) =>
      world.contentOf(log, disk, project).then(
        ({ ids }) => ids.length,
        (error: unknown) => (error instanceof PartsDamaged ? 'damaged' : String(error)),
      ),
    ),
  );

describe('a project whose last part was freed', () => {
  it.each([512, 4_096])(
    'is known after a power cut in any write of the header that remembers it (sectors of %i bytes)',
    async (sectorBytes) => {
      let cuts = 0;
      for (let seed = 1; seed <= 12; seed++)
        for (const write of [/^write \/log\/\d+ 4096 /, /^write \/log\/\d+ 0 4096/]) {
          const world = new LogWorld(3);
          const disk = new SimulatedDisk(...world.directories());
          disk.sectorBytes = sectorBytes;
          const { log, fill } = await made(disk, world);
          const filling = (async () => {
            for (let round = 0; round < 80; round++) {
              if (round > 0 && log.firstLive > 1) disk.failAtLine(write, 'after');
              await fill();
            }
          })();
          await Promise.race([filling, disk.crashes]).catch(() => undefined);
          cuts += disk.crashed ? 1 : 0;
          let state = seed * 7_919;
          const random = () => {
            state = (state * 48_271) % 2_147_483_647;
            return state / 2_147_483_647;
          };
          const cut = disk.powerCut({ random });
          const again = await world.openLog(cut);
          const [, ...idle] = await outcomesOf(again, cut, world);
          expect(idle).toEqual([1, 1]);
          expect(again.stats.holes).toBe(0);
        }
      expect(cuts).toBe(24);
    },
  );

  it('is damaged when its entry in the header is, which affects no other project, and the log reports it', async () => {
    const world = new LogWorld(3);
    const disk = new SimulatedDisk(...world.directories());
    const { log, open, fill } = await made(disk, world);
    while (log.firstLive === 1) await fill();
    await fill();
    // Its last part is freed later than that of the third project, so another header remembers it.
    await open[1]!.commit(world.newCommit(), 300);
    await world.checkpoint(log, disk, open[1]!);
    const since = log.firstLive + log.stats.segmentsLive;
    while (log.firstLive <= since) await fill();
    await log[Symbol.asyncDispose]();
    const cut = disk.powerCut('everything');
    const remembering = [...cut.files()].flatMap(([path, bytes]) => {
      const header = path.startsWith('/log/') ? decodeHeader(bytes) : undefined;
      return header !== undefined && header.number >= log.firstLive && header.rememberedBytes > 0
        ? [{ path, at: 4_096 + header.indexBytes, bytes }]
        : [];
    });
    expect(remembering.length).toBeGreaterThan(0);
    for (const { path, at, bytes } of remembering) {
      const damaged = cut.powerCut('everything');
      const handle = bytes.toString('hex', at, at + 8);
      const changed = Buffer.from(bytes);
      changed.writeUInt8(changed.readUInt8(at + 20) ^ 1, at + 20);
      damaged.tamper(path, changed);
      const again = await world.openLog(damaged);
      expect(again.stats.holes).toBe(1);
      const outcomes = await outcomesOf(again, damaged, world);
      const named = world.projects.findIndex((project) => project.handle === handle);
      expect(outcomes[named]).toBe('damaged');
      expect(outcomes[0]).toBeTypeOf('number');
      await again[Symbol.asyncDispose]();
    }
  });
});
