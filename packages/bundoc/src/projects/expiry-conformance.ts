import type { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { expect, it } from 'vitest';
import { type ExpiryMarks, SWEEP_INTERVAL_MS } from '../engine/projects/expiry-marks.ts';

/** An empty place for markers, with the projects `a`, `b` and `c`. */
export interface MarksPlace {
  readonly clock: FakeClock;
  /** The markers as a new process sees them. */
  start(): ExpiryMarks;
}

/** The tests that every {@link ExpiryMarks} must pass. */
export function describeExpiryMarks(newPlace: () => Promise<MarksPlace>): void {
  const projectOf = async (marks: ExpiryMarks) => (await marks.take())?.project;

  it('return each project once an hour, starting an hour after it was marked', async () => {
    const { clock, start } = await newPlace();
    const marks = start();
    expect(await projectOf(marks)).toBeUndefined();
    await marks.mark('a');
    clock.advance(SWEEP_INTERVAL_MS / 2);
    await marks.ensureMarked('b');
    await marks.ensureMarked('a');
    expect(await projectOf(marks)).toBeUndefined();
    for (let hour = 0; hour < 2; hour++)
      for (const project of ['a', 'b']) {
        clock.advance(SWEEP_INTERVAL_MS / 2);
        expect([await projectOf(marks), await projectOf(marks)]).toEqual([project, undefined]);
      }
  });

  it('give every project its turn, even if more are due than can be taken', async () => {
    const { clock, start } = await newPlace();
    const marks = start();
    for (const project of ['a', 'b', 'c']) {
      await marks.mark(project);
      clock.advance(1);
    }
    const taken: (string | undefined)[] = [];
    for (let turn = 0; turn < 6; turn++) {
      clock.advance(SWEEP_INTERVAL_MS);
      taken.push(await projectOf(marks));
    }
    expect(taken).toEqual(['a', 'b', 'c', 'a', 'b', 'c']);
  });

  it('survive a restart until they are removed', async () => {
    const { clock, start } = await newPlace();
    const marks = start();
    for (const project of ['a', 'b', 'c']) await marks.mark(project);
    clock.advance(SWEEP_INTERVAL_MS);
    const due = await marks.take();
    if (due === undefined) throw new Error('nothing is due');
    await marks.unmark(due);
    const later = start();
    await later.take();
    const taken = new Set<string | undefined>();
    for (let turn = 0; turn < 10; turn++) {
      clock.advance(SWEEP_INTERVAL_MS / 5);
      taken.add(await projectOf(later));
    }
    taken.delete(undefined);
    expect([...taken].sort()).toEqual(['a', 'b', 'c'].filter((project) => project !== due.project));
  });

  it('stay when a project was marked again after it was taken, and are due again when requested', async () => {
    const { clock, start } = await newPlace();
    const marks = start();
    await marks.mark('a');
    clock.advance(SWEEP_INTERVAL_MS);
    const first = await marks.take();
    if (first === undefined) throw new Error('nothing is due');
    await marks.reschedule(first, 1_000);
    clock.advance(1_000);
    const second = await marks.take();
    if (second === undefined) throw new Error('nothing is due');
    expect(second.project).toBe('a');
    await marks.mark('a');
    await marks.reschedule(second, 0);
    await marks.unmark(second);
    expect(await projectOf(marks)).toBeUndefined();
    clock.advance(SWEEP_INTERVAL_MS + 1);
    expect(await projectOf(marks)).toBe('a');
  });
}
