import { describe, expect, it } from 'vitest';
import { Stages } from './test-stages.mjs';

function stagesOf(durations: Record<string, number> = {}, processors = 2) {
  let nowMs = 0;
  const files = [
    ...Array.from({ length: 10 }, (_, n) => ({ id: `unit ${n}`, stage: 0 })),
    ...Array.from({ length: 4 }, (_, n) => ({ id: `integration ${n}`, stage: 1 })),
  ];
  const stages = new Stages(files, { durations, processors, nowMs: () => nowMs });
  return { stages, wait: (seconds: number) => (nowMs += seconds * 1_000) };
}
const SLOW = Object.fromEntries([0, 1, 2, 3].map((n) => [`integration ${n}`, 300]));

describe('a run of many files', () => {
  it('begins with their number, about how long they take, and the commands for a part', () => {
    const text = stagesOf(SLOW).stages.announcement();
    expect(text).toContain('14 files of tests, about 5 minutes on 2 processors.');
    expect(text).toContain('npm run test:quick');
    expect(text).toContain('npm run test:one -- <file or folder>');
  });

  it('takes less with more processors', () => {
    expect(stagesOf(SLOW, 8).stages.announcement()).toContain('about 2 minutes on 8 processors');
    expect(stagesOf({}, 1).stages.announcement()).toContain('about 20 seconds on one processor');
  });

  it('says which stage it is in, what has ended, and about how long is left', () => {
    const { stages, wait } = stagesOf(SLOW);
    expect(stages.progress()).toBe(
      'stage 1 of 2, unit tests: 0 of 10 files, 0 passed, 0 failed, 0 skipped, about 5 minutes left',
    );
    for (let n = 0; n < 9; n++) expect(stages.ended(`unit ${n}`)).toBe(undefined);
    for (const state of ['passed', 'passed', 'skipped', 'failed', 'pending'] as const) stages.tested(state);
    wait(3);
    expect(stages.ended('unit 9')).toBe(
      'stage 1 of 2, unit tests: all 10 files, 2 passed, 1 failed, 1 skipped',
    );
    expect(stages.progress()).toContain('stage 2 of 2, running services: 0 of 4 files');
    expect(stages.progress()).toContain('about 5 minutes left');
  });

  it('expects the rest at its own pace', () => {
    const { stages, wait } = stagesOf(SLOW);
    for (let n = 0; n < 10; n++) stages.ended(`unit ${n}`);
    stages.ended('integration 0');
    stages.ended('integration 1');
    wait(612);
    expect(stages.progress()).toContain('about 10 minutes left');
  });

  it('counts a file once', () => {
    const { stages } = stagesOf();
    stages.ended('unit 0');
    stages.ended('unit 0');
    stages.ended('unknown');
    expect(stages.progress()).toContain('1 of 10 files');
  });
});
