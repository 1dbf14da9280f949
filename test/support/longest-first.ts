import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { BaseSequencer, type TestSpecification, type Vitest } from 'vitest/node';

/** The files that take longest, the longest first. The unit tests run before the others. */
const LONGEST = [
  'packages/bunkms/src/store/sqlite/sqlite-store.test.ts',
  'packages/bundoc/src/projects/spread-rotations.test.ts',
  'packages/bundoc/src/engine/files/log/bit-flips.test.ts',
  'packages/bundoc/src/engine/files/crash.prop.test.ts',
  'packages/bunkms/test/postgres-api.test.ts',
  'test/docs-shell.test.ts',
  'test/release.test.ts',
  'test/console-bundoc.test.ts',
  'packages/bundoc/test/move-interruptions.test.ts',
  'packages/bunkms/test/crash.test.ts',
  'test/postgres-cluster.test.ts',
  'packages/bundoc/test/postgres-reads.test.ts',
  'test/console-bunkms.test.ts',
  'test/npm-start.test.ts',
  'packages/bunkms/test/postgres-processes.test.ts',
  'test/kill-loop-many.test.ts',
  'packages/bunkms/test/postgres-faults.test.ts',
  'test/disk-full.test.ts',
  'test/forged-storage.test.ts',
  'test/console-states.test.ts',
  'packages/bunkms/test/postgres-nodes.test.ts',
  'packages/bunkms/test/postgres-store.test.ts',
  'test/neighbours.test.ts',
  'test/console-large.test.ts',
  'test/rolling-restart.test.ts',
];

/**
 * Starts the longest files of each group first, so that none of them is left for the end, when the other
 * workers have nothing to do. Vitest orders files by their last run, which a new checkout does not have.
 */
export class LongestFirst extends BaseSequencer {
  readonly #ranks: ReadonlyMap<string, number>;

  constructor(vitest: Vitest) {
    super(vitest);
    const { root } = vitest.config;
    for (const path of LONGEST)
      if (!existsSync(join(root, path)))
        throw new Error(`${path} does not exist; correct the list of the longest tests`);
    this.#ranks = new Map(LONGEST.map((path, rank) => [join(root, path), rank]));
  }

  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const group = ({ project }: TestSpecification) => project.config.sequence.groupOrder;
    const rank = ({ moduleId }: TestSpecification) => this.#ranks.get(moduleId) ?? LONGEST.length;
    return (await super.sort(files)).sort(
      (one, other) => group(one) - group(other) || rank(one) - rank(other),
    );
  }
}
