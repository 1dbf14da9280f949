import { AsyncLocalStorage } from 'node:async_hooks';
import { Crash, type SimulatedDisk } from './simulated-disk.ts';

/** Whatever a test puts in its place. */
const realSetTimeout = globalThis.setTimeout;
const STEP_MS_MAX = 20_000;

/** A process of the service. Once it is dead, none of its timers ends. */
interface Process {
  isDead: boolean;
}

const processes = new AsyncLocalStorage<Process>();

/** Whether what runs belongs to a process that has died. */
export const isOfTheDead = (): boolean => processes.getStore()?.isDead === true;

/** Runs something in a process, until the disk crashes. Nothing that is under way settles after a crash. */
export async function runIn(
  process: Process,
  disk: SimulatedDisk,
  work: () => Promise<void>,
): Promise<'done' | 'crashed'> {
  const crashed = disk.crashes.catch((error: unknown) => {
    if (!(error instanceof Crash)) throw error;
  });
  const working = processes.run(process, work);
  const outcome = await Promise.race([
    working.then(
      () => 'done' as const,
      (error: unknown) => {
        if (disk.crashed) return 'crashed' as const;
        throw error;
      },
    ),
    crashed.then(() => 'crashed' as const),
  ]);
  if (outcome === 'crashed') process.isDead = true;
  return outcome;
}

/** Waits for a step, which must not hang. */
export async function inTime(step: object, work: Promise<void>): Promise<void> {
  const ended = Promise.withResolvers<never>();
  const timer = realSetTimeout(() => ended.reject(new Error(`${JSON.stringify(step)} hangs`)), STEP_MS_MAX);
  try {
    await Promise.race([work, ended.promise]);
  } finally {
    clearTimeout(timer);
  }
}
