import { createParser } from 'eventsource-parser';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EventStreamParser, type ServerSentEvent } from './event-stream.ts';

const line = fc.oneof(
  fc.constantFrom(
    '',
    '',
    'event: change',
    'event:x',
    'data: {"a":1}',
    'data',
    'data:',
    'data:  two',
    ': comment',
    'retry: 5',
    'id: 7',
    'id',
  ),
  fc.string().map((text) => `data: ${text.replace(/[\r\n]/g, '')}`),
);
const end = fc.constantFrom('\n', '\r\n', '\r');

/** The text, cut where the numbers say. */
function cut(text: string, cuts: readonly number[]): string[] {
  const at = [...new Set(cuts.map((one) => one % (text.length + 1)))].sort((a, b) => a - b);
  return [0, ...at].map((from, index) => text.slice(from, at[index] ?? text.length));
}

describe('an event stream', () => {
  it('gives the events of the reference parser, however the chunks are cut', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(line, end)), fc.array(fc.nat()), (lines, cuts) => {
        const text = `${lines.map((parts) => parts.join('')).join('')}data: last\n\n`;
        const parser = new EventStreamParser();
        const events = cut(text, cuts).flatMap((chunk) => parser.push(chunk));
        const expected: Pick<ServerSentEvent, 'type' | 'data'>[] = [];
        createParser({
          onEvent: ({ event = 'message', data }) => expected.push({ type: event, data }),
        }).feed(text);
        expect(events.map(({ type, data }) => ({ type, data }))).toEqual(expected);
      }),
      { numRuns: 500 },
    );
  });

  it('may begin with a byte order mark, also behind an empty chunk, and no later line may', () => {
    const parser = new EventStreamParser();
    const chunks = ['', '\uFEFFdata: 1\n', '\uFEFFdata: 2\n', '\n'];
    expect(chunks.flatMap((chunk) => parser.push(chunk)).map(({ data }) => data)).toEqual(['1']);
  });

  it('keeps the id until an event has another one', () => {
    const parser = new EventStreamParser();
    const events = parser.push('\uFEFFdata: 1\n\nid: a\n\ndata: 2\n\ndata: 3\nid: b\n\ndata: 4\nid: c\0\n\n');
    expect(events.map(({ data, id }) => [data, id])).toEqual([
      ['1', undefined],
      ['2', 'a'],
      ['3', 'b'],
      ['4', 'b'],
    ]);
  });
});
