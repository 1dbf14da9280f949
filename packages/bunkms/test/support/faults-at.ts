// Loaded before a program, by --import: ends it by SIGKILL, or lets a call fail, at one step of its writes.
// FAULT_AT=<number>:<before|torn|after|ENOSPC|…>; without it, the steps are only counted. FAULT_TRACE=<file>
// gets a line for each step.

import { appendFileSync } from 'node:fs';
import files, { type FileHandle } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { isMainThread, Worker } from 'node:worker_threads';

const { FAULT_AT = '', FAULT_TRACE = '', FAULT_FOLDER = '' } = process.env;
const [at, how = ''] = FAULT_AT.split(':');
let step = 0;

type Call = (...args: never[]) => unknown;

/** One step. @param tear does a part of it. */
function guarded(name: string, call: () => unknown, tear?: () => Promise<unknown>): unknown {
  step += 1;
  appendFileSync(FAULT_TRACE, `${name}\n`);
  if (step !== Number(at)) return call();
  if (how === 'before') die();
  if (how === 'torn') return Promise.resolve((tear ?? call)()).then(die);
  if (how === 'after') return Promise.resolve(call()).then(die);
  return Promise.reject(Object.assign(new Error(`${how}: injected`), { code: how }));
}

function die(): void {
  process.kill(process.pid, 'SIGKILL');
  // The signal may take a moment.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10_000);
}

function isWatched(path: unknown): boolean {
  return typeof path === 'string' && path.startsWith(FAULT_FOLDER);
}

if (isMainThread) {
  for (const name of ['rename', 'chmod', 'chown', 'rm'] as const) {
    const real = files[name] as Call;
    const replaced = (...args: unknown[]) =>
      isWatched(args[0]) ? guarded(name, () => real(...(args as never[]))) : real(...(args as never[]));
    Object.assign(files, { [name]: replaced });
  }
  const { open } = files;
  const openWatched = async (...args: Parameters<typeof open>) => {
    if (!isWatched(args[0])) return await open(...args);
    const file = (await guarded('open', () => open(...args))) as FileHandle;
    const [write, sync] = [file.writeFile.bind(file), file.sync.bind(file)];
    const writeFile = (bytes: Uint8Array) =>
      guarded(
        'write',
        () => write(bytes),
        () => write(bytes.subarray(0, bytes.length / 2)),
      );
    return Object.assign(file, { writeFile, sync: () => guarded('sync', sync) });
  };
  Object.assign(files, { open: openWatched });
  syncBuiltinESMExports();
  // Each message to the thread of the store is a step of the rotation.
  const { postMessage } = Worker.prototype;
  Worker.prototype.postMessage = function (this: Worker, ...args: Parameters<typeof postMessage>) {
    // A message cannot fail.
    if (how === '' || how === 'before') void guarded('store', () => undefined);
    return postMessage.apply(this, args);
  };
}
