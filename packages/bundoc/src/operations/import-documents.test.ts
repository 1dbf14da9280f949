import { Bundoc } from '@bundoc/client';
import type { CommandError } from '@bundoc/shared/cli/errors';
import { describe, expect, it, vi } from 'vitest';
import { withProgress } from '../cli/bulk-import.ts';
import { ConnectionLost, type ImportProgress, importDocuments } from './import-documents.ts';
import { InvalidLine, linesOf } from './ndjson.ts';

/** Imports 450 documents into a service whose second batch gets this answer. */
async function failureOf(answer: () => Promise<Response>): Promise<unknown> {
  const text = Array.from({ length: 450 }, (_, n) => `{"n":${n}}`).join('\n');
  async function* source() {
    yield Buffer.from(text);
  }
  let batches = 0;
  const fetch = async () => (batches++ === 0 ? Response.json({ results: [] }) : answer());
  // The client repeats a batch for five minutes.
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  const passing = setInterval(() => vi.advanceTimersByTime(10_000), 1);
  try {
    await importDocuments(
      new Bundoc({ url: 'http://127.0.0.1:1', token: 'none', fetch }),
      linesOf(source()),
      { end: 0, lines: 0, documents: 0 },
      {
        ...options,
        collection: 'notes',
      },
    );
    return undefined;
  } catch (error) {
    return error;
  } finally {
    clearInterval(passing);
    vi.useRealTimers();
  }
}

const options = {
  project: 'p',
  run: 'one',
  batchesAtOnce: 1,
  signal: new AbortController().signal,
  onDone: async () => undefined,
  save: async () => undefined,
};

const done = { end: 1, lines: 200, documents: 200 };

describe('an import', () => {
  it('whose connection is lost names the line, what is written, and to run it again', async () => {
    const failure = await failureOf(() => Promise.reject(new TypeError('fetch failed')));
    expect(failure).toBeInstanceOf(ConnectionLost);
    const { message } = withProgress(failure, done, true) as CommandError;
    expect(message).toBe('connection lost at line 201; 200 documents before it are written; run it again');
    // A source without a state would be written once more.
    expect(withProgress(failure, done, false)).toMatchObject({
      message: 'connection lost at line 201; 200 documents before it are written',
    });
  });

  it('whose lines are refused says so, and what is written', async () => {
    const body = JSON.stringify({ code: 'invalid_document', status: 400, title: 'no' });
    const failure = await failureOf(async () => new Response(body, { status: 400 }));
    expect(failure).toBeInstanceOf(InvalidLine);
    expect(withProgress(failure, { ...done, documents: 1 }, true)).toMatchObject({
      message: expect.stringMatching(/^lines 201 to 400 were refused: .*; 1 document before it is written$/),
    });
  });

  it('into one collection refuses lines of two, and sends neither, also when it is resumed', async () => {
    const sent: string[] = [];
    const run = async (text: string, done: ImportProgress, collection?: string) => {
      async function* source() {
        yield Buffer.from(text);
      }
      const fetch = async (url: Parameters<typeof globalThis.fetch>[0]) => {
        sent.push(String(url));
        return Response.json({ results: [] });
      };
      return importDocuments(
        new Bundoc({ url: 'http://127.0.0.1:1', token: 'none', fetch }),
        linesOf(source(), { number: done.lines, end: done.end }),
        done,
        { ...options, collection },
      );
    };
    const start = { end: 0, lines: 0, documents: 0 };
    const notes = '{"_id":"a","_collection":"notes"}';
    for (const orders of [
      '{"_id":"a","_collection":"orders"}',
      '{"_id":"a","_collection":"orders","_deleted":true}',
    ]) {
      const fault = 'is of the collection orders, and earlier lines are of notes';
      await expect(run(`${notes}\n${orders}`, start, 'copy')).rejects.toThrow(`line 2 ${fault}`);
      const { from } = await run(notes, start, 'copy');
      sent.length = 0;
      await expect(run(orders, { end: 9, lines: 7, documents: 7, from }, 'copy')).rejects.toThrow(
        `line 8 ${fault}`,
      );
      expect(sent).toEqual([]);
    }
    await run(`${notes}\n{"_id":"b"}\n${notes}`, start, 'copy');
    await run(`${notes}\n{"_id":"a","_collection":"orders"}`, start);
  });
});
