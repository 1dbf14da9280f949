import { describe, expect, it } from 'vitest';
import type { TestModule } from 'vitest/node';
import { countLine, countRun, parseCountLine } from './count-line.mjs';

type State = 'passed' | 'failed' | 'skipped' | 'pending';

/** The parts of a test module that are counted. */
function testModule(states: State[], errors: unknown[] = [], suiteErrors: unknown[][] = []): TestModule {
  return {
    errors: () => errors,
    children: {
      allSuites: () => suiteErrors.map((own) => ({ errors: () => own })),
      allTests: () => states.map((state) => ({ result: () => ({ state }) })),
    },
  } as unknown as TestModule;
}

describe('the count of a run', () => {
  it('adds up the tests of all modules', () => {
    const modules = [testModule(['passed', 'skipped', 'passed']), testModule(['failed', 'passed'])];
    expect(countRun(modules, [])).toEqual({ passed: 3, failed: 1, skipped: 1 });
  });

  it('counts a module that did not load, a hook that threw and an error outside tests as failed', () => {
    expect(countRun([testModule([], [new Error('import')])], [])).toMatchObject({ failed: 1 });
    expect(countRun([testModule(['skipped'], [], [[new Error('hook')], []])], [])).toMatchObject({
      failed: 1,
    });
    expect(countRun([testModule(['passed'])], [new Error('late')])).toEqual({
      passed: 1,
      failed: 1,
      skipped: 0,
    });
  });

  it('counts a test that never ended as failed', () => {
    expect(countRun([testModule(['pending'])], [])).toEqual({ passed: 0, failed: 1, skipped: 0 });
  });

  it('can be parsed from its own line', () => {
    const count = { passed: 12, failed: 0, skipped: 3 };
    expect(countLine(count)).toBe('12 passed, 0 failed, 3 skipped');
    expect(parseCountLine(`${countLine(count)}\n`)).toEqual(count);
    expect(() => parseCountLine('Tests 3 passed')).toThrow();
  });
});
