import { freeMemory } from '@bundoc/shared/process/free-memory';
import { yieldToOthers } from '@bundoc/shared/process/thread-priority';
import { sentError } from '@bundoc/shared/threads/calls';
import { serveCalls } from '@bundoc/shared/threads/serve-calls';
import type { Job } from './job.ts';
import type { LargeAnswer, LargeJobs, LargeRequest } from './large-thread.ts';

// The thread of `large-thread.ts`. It runs one job after another and keeps no state between them.

// The event loop's thread has priority.
yieldToOthers();

const jobs: LargeJobs = { run };
serveCalls(() => jobs);

async function run({ module, name, input }: LargeRequest): Promise<LargeAnswer> {
  const { JOBS } = (await import(module)) as { JOBS: Readonly<Record<string, Job<unknown, unknown>>> };
  const before = process.threadCpuUsage();
  const answer = outcomeOf(() => JOBS[name]?.run(input));
  free(input, answer.output);
  const { user, system } = process.threadCpuUsage(before);
  return { ...answer, us: user + system };
}

/** Frees the bytes of a job, unless its output refers to them. */
function free(input: unknown, output: unknown): void {
  if (output instanceof Uint8Array || typeof input !== 'object' || input === null) return;
  for (const member of Object.values(input)) if (member instanceof Uint8Array) freeMemory(member);
}

function outcomeOf(run: () => unknown): Omit<LargeAnswer, 'us'> {
  try {
    return { output: run() };
  } catch (error) {
    return { error: sentError(error) };
  }
}
