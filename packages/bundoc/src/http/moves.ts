import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { AppError } from '@bundoc/shared/contract/app-error';
import { problemOf, toAppError } from '@bundoc/shared/contract/problem-reply';
import type { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { WITHOUT_PLACE } from '@bundoc/shared/http/gate-door';
import { describe } from '@bundoc/shared/openapi/description';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Moves, RunningMove } from '../service/moves.ts';
import { guardProject, projectPath, projectPathSchema } from './access.ts';
import { PROJECT_REFUSALS, projectAccess } from './descriptions.ts';

const NDJSON = 'application/x-ndjson';
/** Interval of progress lines. They are sent even without progress, so that the connection looks alive. */
const PROGRESS_EVERY_MS = 500;

const DESCRIPTION = describe({
  id: 'moveProject',
  tag: 'projects',
  summary: 'Move a project to PostgreSQL',
  description:
    'Out of files, to the database that `BUNDOC_MOVE_TO` names, while the project is used; without it, 409 `move_refused`. Lines of JSON as they come: ' +
    '`{"step":"copying","documents":…,"of":…}`, with `verifying` and `switching` to follow, and a last one, `{"moved":…,"to":…,"kept":…}`, or `{"problem":…}` with a ' +
    'problem document when it failed; then the project stays here, or its requests are refused until BunKMS says where it is. Anyone who goes away stops it, unless it is ' +
    'about to change hands. Without a last line its outcome is unknown: the same call repeats it, or gives the same answer.',
  access: projectAccess('docs:admin'),
  params: projectPathSchema,
  answers: {
    200: { description: 'How far it is, and how it ended', schema: z.string(), contentType: NDJSON },
  },
  refusals: [...PROJECT_REFUSALS, 'move_refused'],
  examples: {
    notSetUp: { params: { project: 'project-a' }, status: 409 },
  },
});

/** Moves of projects in use to another storage. */
export function registerMoves(app: FastifyInstance, moves: Moves, auth: BearerAuth): void {
  // Before the listener closes, which would wait for the answers.
  app.addHook('preClose', () => moves.close());

  app.post(
    '/v1/projects/:project/move',
    { onRequest: guardProject(auth, 'docs:admin'), config: { ...WITHOUT_PLACE, ...DESCRIPTION } },
    async (request, reply) => {
      const { project } = projectPath(request);
      const move = await moves.begin(project);
      const stream = Readable.from(linesOf(project, move, request.id), { objectMode: false });
      // Even if nobody has read a line of it.
      stream.once('close', () =>
        move.stop(new AppError('overloaded', { detail: 'the client disconnected' })),
      );
      reply.header('content-type', NDJSON).header('cache-control', 'no-store');
      return reply.send(stream);
    },
  );
}

async function* linesOf(project: string, move: RunningMove, requestId: string) {
  const over = new AbortController();
  const ended = move.outcome.then(
    (moved) => ({ moved: project, ...moved }),
    (error: unknown) => ({ problem: problemOf(toAppError(error), requestId) }),
  );
  void ended.then(() => over.abort());
  do {
    yield `${JSON.stringify(move.progress)}\n`;
    await sleep(PROGRESS_EVERY_MS, undefined, { signal: over.signal }).catch(() => undefined);
  } while (!over.signal.aborted);
  yield `${JSON.stringify(await ended)}\n`;
}
