import { BaseSequencer, type TestSpecification } from 'vitest/node';
import { readDurations, testFileId } from '../../scripts/lib/test-stages.mjs';

/**
 * Starts files that run alone first, then those of each project, whose processes end with the project. Of
 * these, the longest come first, so that none of them is left for the end, when the other workers have
 * nothing to do. Vitest orders files by their last run, which a new checkout does not have.
 */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const { root } = this.ctx.config;
    const durations = readDurations(root);
    const group = ({ project }: TestSpecification) => project.config.sequence.groupOrder;
    const place = ({ project }: TestSpecification) => (project.config.isolate ? '' : project.name);
    const seconds = ({ project, moduleId }: TestSpecification) =>
      durations[testFileId(root, project.name, moduleId)] ?? 0;
    return (await super.sort(files)).sort(
      (one, other) =>
        group(one) - group(other) || place(one).localeCompare(place(other)) || seconds(other) - seconds(one),
    );
  }
}
