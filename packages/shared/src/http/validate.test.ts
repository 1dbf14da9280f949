import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { AppError } from '../contract/app-error.ts';
import { queryRequestSchema } from '../contract/query.ts';
import { issueTokenSchema } from '../contract/tokens.ts';
import { validate } from './validate.ts';

const SECRET = 'planted-secret';

function refusal(action: () => unknown): AppError {
  try {
    action();
  } catch (error) {
    if (error instanceof AppError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

describe('validate', () => {
  it('returns the output of the schema', () => {
    expect(validate(z.object({ n: z.coerce.number() }), { n: '7' }, 'query')).toEqual({ n: 7 });
  });

  it('lists every fault by part and path, and quotes no value', () => {
    const schema = z.strictObject({
      name: z.string().max(3),
      kind: z.enum(['a', 'b']),
      type: z.literal('aes-256'),
      id: z.uuid(),
      list: z.array(z.int()),
    });
    const input = { name: SECRET, kind: SECRET, type: SECRET, id: SECRET, list: [1, SECRET], more: SECRET };
    const error = refusal(() => validate(schema, input, 'body'));
    expect(error.code).toBe('invalid_request');
    expect(error.errors?.map((fault) => fault.path).sort()).toEqual(
      ['body', 'body.id', 'body.kind', 'body.list.1', 'body.name', 'body.type'].sort(),
    );
    expect(JSON.stringify(error.errors) + error.message + String(error.stack)).not.toContain(SECRET);
    expect(error.cause).toBeUndefined();
  });

  it('names unknown members, what is known where they stand, and a similar member', () => {
    const place = z.strictObject({ field: z.string(), direction: z.string().optional() });
    const schema = z.strictObject({ limit: z.int().optional(), orderBy: z.array(place).optional() });
    const faultsOf = (input: object, part: 'body' | 'query' = 'body') =>
      refusal(() =>
        validate(
          schema.refine(() => true),
          input,
          part,
        ),
      ).errors;
    expect(faultsOf({ skip: 10 })).toEqual([
      { path: 'body', message: 'skip: unknown; known are limit, orderBy' },
    ]);
    expect(faultsOf({ limt: '1', owner: 'bob' }, 'query')).toEqual([
      { path: 'query', message: 'limt (did you mean limit?), owner: unknown; known are limit, orderBy' },
    ]);
    expect(faultsOf({ orderBy: [{ field: 'a', order: 'x' }] })).toEqual([
      { path: 'body.orderBy.0', message: 'order: unknown; known are field, direction' },
    ]);
    expect(refusal(() => validate(z.strictObject({}), { owner: 'bob' }, 'query')).errors).toEqual([
      { path: 'query', message: 'owner: unknown; none is known' },
    ]);
  });

  it('names the form of a value of another type once, without what follows from it', () => {
    const faultsOf = (orderBy: unknown) =>
      refusal(() => validate(queryRequestSchema, { orderBy }, 'body')).errors;
    const message = 'must be an array such as [{"field":"stars","direction":"desc"}]';
    // As a text, it also has more than four characters, and a list has at most four elements.
    for (const orderBy of ['stars', { field: 'stars' }, null])
      expect(faultsOf(orderBy)).toEqual([{ path: 'body.orderBy', message }]);
    expect(faultsOf(['stars'])).toEqual([
      { path: 'body.orderBy.0', message: 'must be an object such as {"field":"stars"}' },
    ]);
    expect(faultsOf(Array(5).fill({ field: 'a' }))).toEqual([
      { path: 'body.orderBy', message: 'must have at most 4 elements' },
    ]);
  });

  it('repeats only a few, short, printable names, however many unknown members a client sends', () => {
    const schema = z.strictObject({ limit: z.int().optional() });
    const messageOf = (input: object) => refusal(() => validate(schema, input, 'body')).errors?.[0]?.message;
    const many = Object.fromEntries(Array.from({ length: 10_000 }, (_, at) => [`m${at}`, SECRET]));
    expect(messageOf(many)).toBe('m0, m1, m2, m3, m4 and 9995 more: unknown; known are limit');
    expect(messageOf({ ['a'.repeat(1_048_576)]: 1 })).toBe(
      'a name of 1048576 characters: unknown; known are limit',
    );
    expect(messageOf({ 'a\n\u001b[31m, b: "c"\u202e\ud800': 1, '': 1 })).toBe(
      String.raw`"a\n\u001b[31m, b: \"c\"\u202e\ud800", "": unknown; known are limit`,
    );
  });

  it('refuses a query parameter that is given twice, whatever the schema accepts', () => {
    const schema = z.object({ limit: z.unknown() });
    const error = refusal(() => validate(schema, { limit: ['1', '2'] }, 'query'));
    expect(error.errors).toEqual([{ path: 'query.limit', message: 'is given twice' }]);
    expect(validate(schema, { limit: ['1', '2'] }, 'body')).toEqual({ limit: ['1', '2'] });
  });

  it('says in plain words what is wrong', () => {
    const schema = z.object({
      absent: z.string(),
      text: z.string(),
      count: z.int().min(1),
      few: z.array(z.int()).max(2),
      none: z.array(z.int()).min(1),
      long: z.string().max(1),
      kind: z.enum(['a', 'b']),
      op: z.discriminatedUnion('op', [
        z.object({ op: z.literal('put') }),
        z.object({ op: z.literal('delete') }),
      ]),
      own: z.string('must be what I say'),
    });
    const input = {
      text: 1,
      count: 0,
      few: [1, 2, 3],
      none: [],
      long: 'ab',
      kind: 'c',
      op: { op: 'x' },
      own: 1,
    };
    const faults = refusal(() => validate(schema, input, 'body')).errors ?? [];
    expect(faults.map(({ path, message }) => `${path} ${message}`)).toEqual([
      'body.absent is required',
      'body.text must be a string',
      'body.count must be at least 1',
      'body.few must have at most 2 elements',
      'body.none must have at least 1 element',
      'body.long must have at most 1 character',
      'body.kind must be one of "a", "b"',
      'body.op.op must be one of "put", "delete"',
      'body.own must be what I say',
    ]);
  });

  it('takes a path without a name for no endpoint, as errors.md says of a trailing slash', () => {
    const schema = z.object({ project: z.string().min(1) });
    expect(refusal(() => validate(schema, { project: '' }, 'params')).code).toBe('not_found');
    expect(refusal(() => validate(schema, { project: '' }, 'body')).code).toBe('invalid_request');
  });

  it('cuts the path of a fault, whose names may be those of a client', () => {
    const input = { ['n'.repeat(1_048_576)]: 'x' };
    const [fault] = refusal(() => validate(z.record(z.string(), z.int()), input, 'body')).errors ?? [];
    expect(fault?.path).toBe(`body.${'n'.repeat(1_019)}…`);
  });

  it('names a fault of the whole input by its part', () => {
    expect(refusal(() => validate(z.object({}), undefined, 'body')).errors?.[0]?.path).toBe('body');
  });

  it('lists a limited number of faults', () => {
    const input = Array.from({ length: 1_000 }, () => 'x');
    expect(refusal(() => validate(z.array(z.int()), input, 'body')).errors).toHaveLength(20);
  });

  it('quotes no value of a request for a token', () => {
    const input = {
      sub: `${SECRET} x`,
      typ: SECRET,
      scope: [SECRET],
      keys: [`${SECRET}/`],
      projects: [`${SECRET}/`],
      ttl_s: SECRET,
    };
    expect(JSON.stringify(refusal(() => validate(issueTokenSchema, input, 'body')).errors)).not.toContain(
      SECRET,
    );
  });
});
