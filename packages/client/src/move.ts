import { BundocError, errorOf } from './error.ts';

/** How far a move is: documents of so many are done in its present step, about. */
export interface MoveProgress {
  readonly step: 'copying' | 'verifying' | 'switching';
  readonly documents: number;
  readonly of: number;
}

/** A project that was moved. */
export interface MovedProject {
  readonly moved: string;
  /** Host, port and database. */
  readonly to: string;
  /** What was in the project's folder is kept in this one, below `moved` of the data folder. */
  readonly kept: string;
}

type MoveLine = MoveProgress | MovedProject | { readonly problem: Readonly<Record<string, unknown>> };

/**
 * Reads the answer to a move to its end. @throws BundocError that it ends with; `network_error` when it has
 * no end.
 */
export async function readMove(
  answer: ReadableStream<Uint8Array>,
  onProgress: (progress: MoveProgress) => void,
): Promise<MovedProject> {
  const decoder = new TextDecoder();
  const reader = answer.getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read().catch(brokenOff);
    if (done) return brokenOff();
    const lines = (rest + decoder.decode(value, { stream: true })).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const told = lineOf(line);
      if ('step' in told) onProgress(told);
      else if ('moved' in told) return told;
      else throw errorOf(Number(told.problem['status']), new Headers(), JSON.stringify(told.problem));
    }
  }
}

function lineOf(line: string): MoveLine {
  try {
    return JSON.parse(line) as MoveLine;
  } catch (cause) {
    throw new BundocError('unexpected_answer', { cause });
  }
}

function brokenOff(cause?: unknown): never {
  throw new BundocError('network_error', {
    cause,
    detail: 'the answer broke off; the same call continues the move',
  });
}
