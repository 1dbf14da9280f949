// A Vitest reporter for a run of many files. It says how many there are and about how long they take, and
// then in which stage the run is. Failures are shown as they happen. On a terminal it is one line that moves,
// elsewhere a line each 30 s. A run of few files is reported as Vitest does.

import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { DefaultReporter } from 'vitest/node';
import { LAST_RUN, LISTED_MIN, readDurations, Stages, testFileId } from './lib/test-stages.mjs';

/** Fewer files than these are reported as Vitest does. */
const FILES_MIN = 20;
const LINE_MS = 30_000;
const TERMINAL_LINE_MS = 500;
/** Characters of a line of a failure. */
const LINE_MAX = 300;

export default class StageReporter extends DefaultReporter {
  /** @type {Stages | undefined} */
  #stages;
  /** @type {NodeJS.Timeout | undefined} */
  #timer;
  /** @type {Record<string, number>} */
  #durations = {};
  #moves = process.stdout.isTTY === true;

  /** @param {readonly import('vitest/node').TestSpecification[]} specifications */
  onTestRunStart(specifications) {
    super.onTestRunStart(specifications);
    if (specifications.length < FILES_MIN) return;
    this.summary = undefined;
    this.#durations = readDurations(this.#root);
    const files = specifications.map(({ project, moduleId }) => ({
      id: testFileId(this.#root, project.name, moduleId),
      stage: project.config.sequence.groupOrder,
    }));
    const options = { durations: this.#durations, processors: availableParallelism(), nowMs: Date.now };
    const stages = new Stages(files, options);
    this.log(stages.announcement());
    const show = () => {
      const line = stages.progress();
      if (this.#moves) process.stdout.write(`\r\x1b[2K${line.slice(0, (process.stdout.columns || 80) - 1)}`);
      else this.log(line);
    };
    this.#timer = setInterval(show, this.#moves ? TERMINAL_LINE_MS : LINE_MS).unref();
    this.#stages = stages;
  }

  /** @param {import('vitest/node').TestCase} test */
  onTestCaseResult(test) {
    super.onTestCaseResult(test);
    const { state, errors } = test.result();
    this.#stages?.tested(state);
    if (state === 'failed') this.#fail(`${this.#idOf(test.module)} > ${test.fullName}`, errors);
  }

  /** @param {import('vitest/node').TestSuite} suite */
  onTestSuiteResult(suite) {
    super.onTestSuiteResult(suite);
    if (suite.errors().length > 0)
      this.#fail(`${this.#idOf(suite.module)} > ${suite.fullName}`, suite.errors());
  }

  /** @param {import('vitest/node').TestModule} testModule */
  onTestModuleEnd(testModule) {
    if (this.#stages === undefined) return super.onTestModuleEnd(testModule);
    const id = this.#idOf(testModule);
    const { duration } = testModule.diagnostic();
    if (duration > 0) this.#durations[id] = Math.round(duration / 100) / 10;
    if (testModule.errors().length > 0) this.#fail(id, testModule.errors());
    const line = this.#stages.ended(id);
    if (line !== undefined) this.#print(line);
  }

  /**
   * @param {readonly import('vitest/node').TestModule[]} testModules
   * @param {readonly import('vitest/node').SerializedError[]} errors
   * @param {import('vitest/node').TestRunEndReason} reason
   */
  onTestRunEnd(testModules, errors, reason) {
    clearInterval(this.#timer);
    if (this.#stages !== undefined) this.#keep();
    super.onTestRunEnd(testModules, errors, reason);
  }

  get #root() {
    return this.ctx.config.root;
  }

  /** @param {import('vitest/node').TestModule} testModule */
  #idOf({ project, moduleId }) {
    return testFileId(this.#root, project.name, moduleId);
  }

  /**
   * @param {string} name
   * @param {readonly { message: string }[]} [errors]
   */
  #fail(name, errors = []) {
    if (this.#stages === undefined) return;
    const [first = ''] = errors.map(({ message }) => message);
    // A property says its seed and its counterexample in the second and third line.
    const lines = first.split('\n', 3).map((line) => `       ${line.slice(0, LINE_MAX)}`);
    this.#print([`FAILED ${name}`, ...lines].join('\n'));
  }

  /** @param {string} text */
  #print(text) {
    if (this.#moves) process.stdout.write('\r\x1b[2K');
    this.log(text);
  }

  /** The next run on this machine expects what this one took. */
  #keep() {
    const listed = Object.entries(this.#durations).filter(([, seconds]) => seconds >= LISTED_MIN);
    const file = join(this.#root, LAST_RUN);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(
      file,
      `${JSON.stringify(Object.fromEntries(listed.sort(([, a], [, b]) => b - a)), null, 2)}\n`,
    );
  }
}
