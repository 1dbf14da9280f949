import { describe, expect, it } from 'vitest';
import type { TestModule } from 'vitest/node';
import { countLine, countRun, parseCountLine, reportOf } from './count-line.mjs';

type State = 'passed' | 'failed' | 'skipped' | 'pending';

/** The parts of a test module that are counted. */
function testModule(
  states: State[],
  errors: unknown[] = [],
  suiteErrors: unknown[][] = [],
  missing?: string,
): TestModule {
  return {
    relativeModuleId: 'some.test.ts',
    errors: () => errors,
    children: {
      allSuites: () => suiteErrors.map((own) => ({ errors: () => own })),
      allTests: () =>
        states.map((state, n) => ({
          fullName: `test ${n}`,
          result: () => ({ state }),
          meta: () => (missing === undefined ? {} : { missing }),
        })),
    },
  } as unknown as TestModule;
}

describe('the count of a run', () => {
  it('adds up the tests of all modules', () => {
    const modules = [testModule(['passed', 'skipped', 'passed']), testModule(['failed', 'passed'])];
    expect(countRun(modules, [])).toMatchObject({ passed: 3, failed: 1, skipped: 1 });
  });

  it('counts a module that did not load, a hook that threw and an error outside tests as failed', () => {
    expect(countRun([testModule([], [new Error('import')])], [])).toMatchObject({ failed: 1 });
    expect(countRun([testModule(['skipped'], [], [[new Error('hook')], []])], [])).toMatchObject({
      failed: 1,
    });
    expect(countRun([testModule(['passed'])], [new Error('late')])).toMatchObject({
      passed: 1,
      failed: 1,
      skipped: 0,
    });
  });

  it('counts a test that never ended as failed, and names it', () => {
    const run = countRun([testModule(['passed', 'pending'])], []);
    expect(run).toMatchObject({ passed: 1, failed: 1, skipped: 0, unfinished: ['some.test.ts > test 1'] });
    expect(reportOf(run, () => ({ about: '', debian: '' }))).toBe(
      '1 of the failed tests have no result:\n  some.test.ts > test 1\n1 passed, 1 failed, 0 skipped',
    );
  });

  it('can be parsed from its own line', () => {
    const count = { passed: 12, failed: 0, skipped: 3 };
    expect(countLine(count)).toBe('12 passed, 0 failed, 3 skipped');
    expect(parseCountLine(`${countLine(count)}\n`)).toEqual(count);
    expect(() => parseCountLine('Tests 3 passed')).toThrow();
  });
});

describe('the report of a run', () => {
  const describeProgram = (name: string) => ({
    about: `${name} (how)`,
    debian: name === 'rights' ? '' : name,
  });

  it('says how many tests need which missing program, and one command that installs all', () => {
    const run = countRun(
      [
        testModule(['skipped', 'passed'], [], [], 'zsh'),
        testModule(['skipped', 'skipped'], [], [], 'docker'),
        testModule(['skipped'], [], [], 'rights'),
        testModule(['skipped']),
      ],
      [],
    );
    expect(reportOf(run, describeProgram).split('\n')).toEqual([
      expect.stringMatching(/^Skipped, because something is missing/),
      '      2 tests need docker (how)',
      '      1 test needs zsh (how)',
      '      1 test needs rights (how)',
      'On Debian: apt-get install --no-install-recommends docker zsh',
      '1 passed, 0 failed, 5 skipped',
    ]);
  });

  it('is one line when nothing is missing', () => {
    expect(reportOf(countRun([testModule(['passed', 'skipped'])], []), describeProgram)).toBe(
      '1 passed, 0 failed, 1 skipped',
    );
  });
});
