import { validate } from '@bundoc/shared/http/validate';
import { parseJsonObject } from '@bundoc/shared/json/parse';
import type { RootMember } from '@bundoc/shared/json/scan';
import type { FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { ANY_DOCUMENT, whereSchema } from '../queries/where.ts';
import type { Selection } from '../service/queries.ts';
import { exactValue, type Value } from '../values/value.ts';
import { writeValue } from '../values/write-value.ts';
import type { Work } from '../work/work.ts';
import { bodyOf } from './body.ts';

interface ReadQuery<S extends z.ZodType> extends Pick<Selection, 'where' | 'whereText' | 'asOf'> {
  readonly body: z.infer<S>;
  /** Where the body has its members. */
  readonly members: readonly RootMember[];
}

/**
 * Parses a request's body, with exact numbers in its condition. Yields between the steps.
 *
 * @throws AppError `invalid_json`, `invalid_request`.
 */
export async function readQuery<S extends z.ZodType<{ where?: unknown; as_of?: number | undefined }>>(
  request: FastifyRequest,
  schema: S,
  work: Work,
): Promise<ReadQuery<S>> {
  const bytes = bodyOf(request);
  await work.pause();
  const parsed = parseJsonObject(bytes);
  await work.pause();
  const value = exactValue(parsed);
  await work.pause();
  const body = validate(schema, value, 'body');
  const { as_of: asOf } = body;
  const { members } = parsed.scan;
  if (body.where === undefined) return { body, asOf, members, where: ANY_DOCUMENT, whereText: '' };
  const where = validate(whereSchema, body.where, 'body.where');
  await work.pause();
  return { body, asOf, members, where, whereText: writeValue(body.where as Value) };
}
