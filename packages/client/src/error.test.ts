import { describe, expect, it } from 'vitest';
import { errorOf } from './error.ts';

describe('the error of an answer', () => {
  it.each(['', '<html>', 'null', '3', '"text"', 'true', '{}', '{"code":1}'])(
    'is `unexpected_answer` when the body is not a problem document: %s',
    (body) => {
      const headers = new Headers({ 'retry-after': '2' });
      expect(errorOf(502, headers, body)).toMatchObject({
        code: 'unexpected_answer',
        status: 502,
        detail: 'the answer has status 502',
        retryAfterMs: 2_000,
        problem: {},
      });
    },
  );

  it('has the members of the problem document, and leaves out those of a wrong type', () => {
    const problem = {
      code: 'disk_full',
      title: 'No room',
      detail: 1,
      request_id: 'r',
      errors: 'none',
      more: 2,
    };
    expect(errorOf(507, new Headers(), JSON.stringify(problem))).toMatchObject({
      code: 'disk_full',
      message: 'disk_full: No room',
      detail: undefined,
      requestId: 'r',
      errors: [],
      retryAfterMs: undefined,
      problem,
    });
  });
});
