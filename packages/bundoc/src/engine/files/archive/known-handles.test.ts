import { expect, it } from 'vitest';
import { KnownHandles } from './known-handles.ts';

it('A project gets another base each time that so many bytes of its parts were shipped since the last one', () => {
  const queued: string[] = [];
  const handles = new KnownHandles((project) => queued.push(project), 100);
  handles.found('a', 'handle of a');
  handles.found('b', 'handle of b');
  handles.shipped('handle of a', 60);
  handles.shipped('handle of b', 99);
  handles.shipped('unknown', 1_000);
  expect(queued).toEqual([]);
  handles.shipped('handle of a', 60);
  handles.shipped('handle of a', 60);
  expect(queued).toEqual(['a']);
  // What was shipped before its end is in the base.
  handles.based('handle of a');
  handles.shipped('handle of a', 60);
  expect(queued).toEqual(['a']);
  handles.shipped('handle of a', 40);
  expect(queued).toEqual(['a', 'a']);
  handles.gone('b');
  handles.shipped('handle of b', 1_000);
  expect(queued).toEqual(['a', 'a']);
});
