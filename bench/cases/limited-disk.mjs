// Many tenants on a disk with 3,000 write operations per second.

import { join } from 'node:path';
import { documentOf, documents, fill } from '../lib/documents.mjs';
import { LimitedDisk, limitedDiskFault } from '../lib/limited-disk.mjs';
import { Installation } from '../lib/processes.mjs';
import { round } from '../lib/report.mjs';
import { Tenants } from '../lib/tenants.mjs';

const WRITES_PER_SECOND = 3_000;
const SEVERAL = 64;
const ONE = 'tenant-one';

/** Both services with all their data on that disk. @param {number} most number of tenants */
export async function limitedDiskTarget(bench, most) {
  const { report, keep, directory, quick } = bench;
  const fault = limitedDiskFault();
  if (fault !== undefined) {
    report.note(`A disk of ${WRITES_PER_SECOND} write operations a second is **not measured**: ${fault}.`);
    return;
  }
  const disk = await keep(LimitedDisk.make(join(directory, 'disk'), WRITES_PER_SECOND));
  const installation = await keep(Installation.start(disk.directory));
  const tenants = new Tenants(bench, { installation, most });
  for (const service of [installation.kms, await tenants.restart()]) disk.limit(service);
  await disk.idle();

  const made = await counted(report, disk, () => tenants.make(`limited disk: ${most} tenants made`));
  report.target('limited disk: tenants made a second', [made.limited], 50, 'at least');
  await disk.idle();
  const once = await counted(report, disk, () =>
    tenants.createEach(`limited disk: create, ${most} tenants once each`, most),
  );
  report.target(`limited disk: create, ${most} tenants once each, a second`, [once.limited], 500, 'at least');
  await disk.idle();

  const [turns, burstS, sustainedS] = quick ? [1, 5, 10] : [2, 20, 60];
  const several = Math.min(SEVERAL, most);
  await fill({ directory, token: installation.token }, tenants.bundoc, ONE, 1, documentOf(1_024));
  const ratios = [];
  for (let turn = 0; turn < turns; turn++) {
    await disk.idle();
    const one = await counted(report, disk, () =>
      tenants.measured(`limited disk: create, 1 tenant, ${burstS} s burst`, {
        ...tenants.creates(1, burstS),
        paths: documents(ONE),
      }),
    );
    await disk.idle();
    const many = await counted(report, disk, () =>
      tenants.measured(
        `limited disk: create, ${several} tenants, ${burstS} s burst`,
        tenants.creates(several, burstS),
      ),
    );
    ratios.push(many.limited / one.limited);
  }
  report.target(
    `limited disk: create, ${several} tenants, ${burstS} s burst, of one`,
    ratios,
    0.7,
    'at least',
  );
  // Right after the burst, so that its deferred work is included.
  const sustained = await counted(report, disk, () =>
    tenants.measured(
      `limited disk: create, ${several} tenants, ${sustainedS} s sustained`,
      tenants.creates(several, sustainedS),
    ),
  );
  const drainMs = await disk.idle();
  report.target(
    `limited disk: create, ${several} tenants, ${sustainedS} s sustained, a second`,
    [sustained.limited],
    1_500,
    'at least',
  );
  report.note(
    `The limited disk was idle ${round(drainMs / 1_000)} s after the sustained creates. ` +
      `Most descriptors beside client connections there: ${tenants.descriptorsMost}.`,
  );
  await tenants.bundoc.stop();
  await installation.stop();
  await disk.stop();
}

/**
 * Counts the writes of the device during a load. If kernel threads wrote more than the limit, `limited` is
 * the rate reduced in proportion.
 */
async function counted(report, disk, measure) {
  const before = disk.writes;
  const row = await measure();
  const writes = disk.writes - before;
  const writesPerSecond = writes / row.seconds;
  const share = Math.min(1, disk.writesPerSecond / writesPerSecond);
  report.note(
    `${row.name}: ${round(row.perSecond)}/s, ${round(writesPerSecond)} writes of the device a second, ` +
      `${(writes / (row.requests - row.refused)).toFixed(2)} a request` +
      (share < 1 ? `; **beyond the limit**, which leaves ${round(row.perSecond * share)}/s.` : '.'),
  );
  return { ...row, limited: row.perSecond * share };
}
