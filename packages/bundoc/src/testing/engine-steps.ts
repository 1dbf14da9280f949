import fc from 'fast-check';

/** A change of a document in a step. */
export interface Op {
  readonly id: string;
  /** Undefined deletes. */
  readonly pad: number | undefined;
}

/** Commits that are given at once, and what happens to projects between such groups. */
export type EngineStep =
  | { readonly kind: 'commits' | 'commits on a full disk'; readonly commits: readonly CommitStep[] }
  | {
      readonly kind: 'checkpoint' | 'checkpoint beside' | 'close' | 'delete' | 'away and back' | 'rotate';
      readonly project: number;
    }
  | { readonly kind: 'folder fails' | 'folder works'; readonly project: number }
  | { readonly kind: 'log fails'; readonly writes: number; readonly when: 'before' | 'after' }
  | { readonly kind: 'restart' | 'carry all' };
interface CommitStep {
  readonly project: number;
  readonly ops: readonly Op[];
}

export const PROJECTS = 8;
export const IDS = ['a', 'b', 'c', 'd', 'e'];
const project = fc.integer({ min: 0, max: PROJECTS - 1 });
const op = fc.record({
  id: fc.constantFrom(...IDS),
  pad: fc.option(
    fc.oneof(
      { weight: 8, arbitrary: fc.integer({ min: 0, max: 2_500 }) },
      { weight: 1, arbitrary: fc.integer({ min: 5_000, max: 30_000 }) },
    ),
    { nil: undefined, freq: 4 },
  ),
});
const commits = fc.array(fc.record({ project, ops: fc.array(op, { minLength: 1, maxLength: 3 }) }), {
  minLength: 1,
  maxLength: 12,
});
export const engineStep: fc.Arbitrary<EngineStep> = fc.oneof(
  { weight: 12, arbitrary: commits.map((all) => ({ kind: 'commits', commits: all }) as const) },
  { weight: 1, arbitrary: commits.map((all) => ({ kind: 'commits on a full disk', commits: all }) as const) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom('checkpoint', 'checkpoint beside', 'close', 'delete', 'away and back', 'rotate'),
      project,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('folder fails' as const), project }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('folder works' as const), project }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('log fails' as const),
      writes: fc.integer({ min: 1, max: 5 }),
      when: fc.constantFrom('before', 'after'),
    }),
  },
  { weight: 2, arbitrary: fc.constantFrom({ kind: 'restart' } as const, { kind: 'carry all' } as const) },
);
