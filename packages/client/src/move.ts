import { BundocError, errorOf } from './error.ts';

/** Progress of a move: documents done in the present step, and about how many it has. */
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
  /** The folder below `moved` in the data folder that keeps the former content of the project's folder. */
  readonly kept: string;
}

type MoveLine = MoveProgress | MovedProject | { readonly problem: Readonly<Record<string, unknown>> };

/**
 * Reads the answer to a move to its end. @throws the BundocError at its end; `network_error` when it is cut
 * short.
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
      const parsed = parseLine(line);
      if ('step' in parsed) onProgress(parsed);
      else if ('moved' in parsed) return parsed;
      else throw errorOf(Number(parsed.problem['status']), new Headers(), JSON.stringify(parsed.problem));
    }
  }
}

function parseLine(line: string): MoveLine {
  try {
    return JSON.parse(line) as MoveLine;
  } catch (cause) {
    throw new BundocError('unexpected_answer', { cause });
  }
}

function brokenOff(cause?: unknown): never {
  throw new BundocError('network_error', {
    cause,
    detail: 'the answer was cut short; the same call continues the move',
  });
}
