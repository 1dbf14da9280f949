import { readFileSync } from 'node:fs';
import { DataFolder } from '@bundoc/shared/files/data-folder';
import { openNodeDisk } from '../engine/files/disk/node-disk.ts';
import { readLog } from '../engine/files/log/log-view.ts';
import { NodeLogDisk } from '../engine/files/log/node-log-disk.ts';
import { partsBehind } from '../engine/files/log/parts.ts';

// Reads a log as a command does, and says how much memory that took: `log-large-reader.ts <data folder>
// <storage id> <handle>`.

const [directory = '', storageId = '', handle = ''] = process.argv.slice(2);
using folder = DataFolder.open(directory);
await using entries = openNodeDisk(directory);
await using disk = new NodeLogDisk(entries, folder);
const view = await readLog({
  disk,
  directory: `${directory}/log`,
  storageId: Buffer.from(storageId, 'hex'),
  everyFrame: true,
});
await using reader = view.reader();
const wanted = { handle, newest: view.newest(handle), covered: undefined, carried: [] };
let [parts, bytes] = [0, 0];
for await (const { body } of partsBehind(reader, wanted)) {
  parts++;
  bytes += body.length;
}
// And as a repair does, which goes by no part but itself.
let walked = 0;
for await (const { body } of view.partsOf(new Set([handle]))) walked += body.length;
// Not that of `resourceUsage`, which begins with the memory of the process that started this one.
const [, peakKb] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
const memoryBytes = Number(peakKb) * 1_024;
process.stdout.write(JSON.stringify({ parts, bytes, walked, damage: view.damage, memoryBytes }));
