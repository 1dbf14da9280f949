import { parentPort } from 'node:worker_threads';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { Job } from './job.ts';
import type { LargeAnswer, LargeRequest } from './large-thread.ts';

// The thread of `large-thread.ts`: one job after another, each of which keeps nothing of the one before.

/** Runs a job. What it refuses is an answer; anything else that it throws is a defect. */
async function answerOf({ module, name, input }: LargeRequest): Promise<LargeAnswer> {
  const { JOBS } = (await import(module)) as { JOBS: Readonly<Record<string, Job<unknown, unknown>>> };
  const before = process.threadCpuUsage();
  const answer = outcomeOf(() => JOBS[name]?.run(input));
  const { user, system } = process.threadCpuUsage(before);
  return { ...answer, us: user + system };
}

function outcomeOf(run: () => unknown): Omit<LargeAnswer, 'us'> {
  try {
    return { output: run() };
  } catch (error) {
    if (!(error instanceof AppError)) return { defect: error };
    const { code, detail, errors } = error;
    return { refused: { code, detail, errors } };
  }
}

parentPort?.on('message', async (request: LargeRequest) => parentPort?.postMessage(await answerOf(request)));
