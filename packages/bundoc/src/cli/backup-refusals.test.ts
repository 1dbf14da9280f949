import { BundocError } from '@bundoc/client/error';
import { describe, expect, it } from 'vitest';
import { endsRun, failureOf, mayConcernAll, pauseAfter } from './backup-refusals.ts';

const refusal = (code: string) => new BundocError(code, { status: 503 });

describe('a refusal during a backup of all projects', () => {
  it.each(['overloaded', 'kms_unavailable', 'audit_unavailable', 'deadline_exceeded'])(
    'ends the run when %s comes for ten projects in a row, after the tries for each',
    (code) => {
      expect(mayConcernAll(refusal(code))).toBe(true);
      expect(endsRun(refusal(code), 9)).toBe(false);
      expect(endsRun(refusal(code), 10)).toBe(true);
      expect(pauseAfter(refusal(code), 1)).toBeGreaterThan(0);
      expect(pauseAfter(refusal(code), 8)).toBeUndefined();
    },
  );

  it.each(['project_damaged', 'project_disabled', 'project_elsewhere'])(
    'fails one project only with %s, at once',
    (code) => {
      expect(mayConcernAll(refusal(code))).toBe(false);
      expect(endsRun(refusal(code), 0)).toBe(false);
      expect(pauseAfter(refusal(code), 1)).toBeUndefined();
      expect(failureOf('p', refusal(code))).toMatchObject({ project: 'p', code });
    },
  );

  it('waits for no customer who is away, and ends no run for him', () => {
    const away = new BundocError('kms_unavailable', { status: 503, problem: { outside_key: 'acme' } });
    expect(mayConcernAll(away)).toBe(false);
    expect(pauseAfter(away, 1)).toBeUndefined();
  });

  it.each(['network_error', 'unauthenticated', 'forbidden'])('ends the run with the first %s', (code) => {
    expect(endsRun(refusal(code), 0)).toBe(true);
  });
});
