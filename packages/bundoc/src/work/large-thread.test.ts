import { hash } from 'node:crypto';
import { JSON_CONTAINERS_MAX } from '@bundoc/shared/json/scan';
import type { ShareKey } from '@bundoc/shared/shares/share-key';
import { describe, expect, it } from 'vitest';
import { readDocumentBody } from '../crypto/stored-text.ts';
import { JOBS, readBatchInTurns, readBodyInTurns, readPatchInTurns } from '../documents/large-content.ts';
import { ifMatchOfBody } from '../documents/precondition-headers.ts';
import { readBatch } from '../documents/read-batch.ts';
import { bytesOf, LARGE_BYTES } from './large-bytes.ts';
import { LargeThread, type LargeThreadOptions } from './large-thread.ts';
import { Scheduler } from './scheduler.ts';

/** Times that no job exceeds on a busy machine, except those that a test is about. */
const threadOf = (options: Partial<LargeThreadOptions> = {}) =>
  new LargeThread({ jobMsMax: 300_000, sharedJobMsMax: 300_000, waitMsMax: 300_000, ...options });
const key = (subject: string) => ({ subject, project: 'p' });
const body = (size: number) => Buffer.from(`{"_id":"a","pad":"${'x'.repeat(size)}"}`);
/** The same with a hash of all bytes. */
function withHashes(value: unknown): unknown {
  if (value instanceof Uint8Array) return hash('sha256', value);
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(withHashes);
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, withHashes(member)]));
}

describe('the thread for large documents', () => {
  it('starts with the first job, and runs one job at a time', async () => {
    await using thread = threadOf();
    const jobs = [1, 2, 3].map((n) => thread.run(key('s'), JOBS.body, { bytes: body(n) }));
    expect(thread.waiting).toBe(2);
    const done = await Promise.all(jobs);
    expect(done.map((output, at) => bytesOf(output.content.piece, body(at + 1)).toString())).toEqual([
      '"pad":"x"',
      '"pad":"xx"',
      '"pad":"xxx"',
    ]);
  });

  it('rejects with the error that a job throws', async () => {
    await using thread = threadOf();
    const bytes = Buffer.from('{"_secret":1}');
    await expect(thread.run(key('s'), JOBS.body, { bytes })).rejects.toMatchObject({
      code: 'invalid_document',
    });
  });

  it('runs further jobs after one that cannot be sent to the thread', async () => {
    await using thread = threadOf();
    const unsendable = { bytes: body(1), more: () => undefined };
    const running = thread.run(key('s'), JOBS.body, { bytes: body(1) });
    const failed = expect(thread.run(key('s'), JOBS.body, unsendable)).rejects.toThrow('could not be cloned');
    const behind = thread.run(key('s'), JOBS.body, { bytes: body(2) });
    await Promise.all([running, failed, behind]);
    await expect(thread.run(key('s'), JOBS.body, { bytes: body(1) })).resolves.toBeDefined();
  });

  it('reports the processor time of each job, even if it failed or was ended', async () => {
    await using thread = threadOf({ jobMsMax: 300 });
    const used: number[] = [];
    const run = async (bytes: Buffer) => {
      await thread
        .run(key('s'), JOBS.body, { bytes }, { onUsed: (us) => used.push(us) })
        .catch(() => undefined);
    };
    const large = JSON.stringify(Array(1_000_000).fill(1));
    // Long enough for the clock of a thread, which moves by steps of up to 4 ms.
    await run(Buffer.from(`{"v":${large}}`));
    await run(Buffer.from(`{"_secret":${large}}`));
    await run(Buffer.from(`{"v":[${Array(20).fill(large).join()}]}`));
    expect(used).toHaveLength(3);
    expect(used.every((us) => us > 0)).toBe(true);
    // A timer may fire a millisecond early.
    expect(used[2]).toBeGreaterThanOrEqual(299_000);
  });

  it('serves subjects in turn, even if one of them has many jobs', async () => {
    await using thread = threadOf();
    const order: string[] = [];
    const run = async (subject: string) => {
      await thread.run(key(subject), JOBS.body, { bytes: body(1) });
      order.push(subject);
    };
    await Promise.all(['many', 'many', 'many', 'many', 'many', 'one'].map(run));
    expect(order.indexOf('one')).toBeLessThanOrEqual(2);
  });

  it('ends a job that takes too long, with its thread', async () => {
    await using slow = threadOf({ jobMsMax: 1 });
    for (const _again of [1, 2])
      await expect(slow.run(key('s'), JOBS.body, { bytes: body(1) })).rejects.toMatchObject({
        code: 'payload_too_large',
      });
  });

  it.each([
    ['another subject', { subject: 'other', project: 'p' }],
    ['another project of its subject', { subject: 's', project: 'other' }],
  ])('ends a job early if %s waits', async (_who, other) => {
    await using thread = threadOf({ sharedJobMsMax: 1 });
    const run = (owner: ShareKey) => thread.run(owner, JOBS.body, { bytes: body(1) });
    // The start of the thread takes longer than a millisecond.
    const [first, second] = [run(key('s')), run(other)];
    await expect(first).rejects.toMatchObject({ code: 'rate_limited', retryAfterS: 5 });
    expect((await second).id).toBe('a');
  });

  it('does not end a job early if only its own project waits', async () => {
    await using thread = threadOf({ sharedJobMsMax: 1 });
    const jobs = [1, 2].map(() => thread.run(key('s'), JOBS.body, { bytes: body(1) }));
    expect((await Promise.all(jobs)).map(({ id }) => id)).toEqual(['a', 'a']);
  });

  it("never ends or refuses a job of the service's own for others, and ends no other job for it", async () => {
    await using thread = threadOf({ sharedJobMsMax: 1 });
    const run = (subject: string) => thread.run(key(subject), JOBS.body, { bytes: body(1) });
    const jobs = await Promise.all(['', 's'].map(run));
    await using other = threadOf({ sharedJobMsMax: 1, waitMsMax: 1 });
    const more = ['s', ''].map((subject) => other.run(key(subject), JOBS.body, { bytes: body(1) }));
    for (const { id } of [...jobs, ...(await Promise.all(more))]) expect(id).toBe('a');
  });

  it('has memory for the largest readable text', async () => {
    await using thread = threadOf();
    const most = JSON_CONTAINERS_MAX - 2;
    const crowded = (count: number) => {
      const items = Array(count).fill('{"a":1}').join();
      return Buffer.from(`{"a":[${items}],"n":[${Array(4_000_000).fill('1.5').join()}]}`);
    };
    const bytes = crowded(most - 1);
    const output = await thread.run(key('s'), JOBS.body, { bytes });
    expect(output.content.hasMembers).toBe(true);
    await expect(thread.run(key('s'), JOBS.body, { bytes: crowded(most) })).rejects.toMatchObject({
      code: 'payload_too_large',
      detail: expect.stringContaining('objects and arrays'),
    });
  });

  it('ends a running or waiting job when its caller leaves', async () => {
    await using thread = threadOf();
    const [running, waiting] = [new AbortController(), new AbortController()];
    const jobs = [running, waiting].map(({ signal }) =>
      thread.run(key('s'), JOBS.body, { bytes: body(1) }, { signal }),
    );
    const last = thread.run(key('s'), JOBS.body, { bytes: body(1) });
    const gone = jobs.map((job) => expect(job).rejects.toThrow('gone'));
    waiting.abort(new Error('gone'));
    running.abort(new Error('gone'));
    await Promise.all(gone);
    expect((await last).id).toBe('a');
    expect(thread.waiting).toBe(0);
  });

  it('refuses a job that has waited too long for its turn', async () => {
    await using thread = threadOf({ waitMsMax: 1 });
    const first = thread.run(key('s'), JOBS.body, { bytes: body(1) });
    const second = thread.run(key('s'), JOBS.body, { bytes: body(1) });
    await expect(second).rejects.toMatchObject({ code: 'overloaded' });
    expect((await first).id).toBe('a');
  });

  it('refuses waiting jobs when it stops', async () => {
    const thread = threadOf();
    const jobs = [1, 2].map(() => thread.run(key('s'), JOBS.body, { bytes: body(1) }));
    const refused = jobs.map((job) => expect(job).rejects.toMatchObject({ code: 'overloaded' }));
    await thread[Symbol.asyncDispose]();
    await Promise.all(refused);
    await expect(thread.run(key('s'), JOBS.body, { bytes: body(1) })).rejects.toMatchObject({
      code: 'overloaded',
    });
  });
});

describe('a large body', () => {
  it('is charged to its project and kind even if it is refused', async () => {
    const used: object[] = [];
    await using scheduler = new Scheduler({ onUsed: (key, us) => used.push({ ...key, us }) }, threadOf());
    const run = scheduler.large.run.bind(scheduler.large);
    let reportedUs = 0;
    scheduler.large.run = (owner, job, input, options) => {
      const onUsed = (us: number) => {
        reportedUs = us;
        options?.onUsed?.(us);
      };
      return run(owner, job, input, { ...options, onUsed });
    };
    using work = scheduler.work(key('s'), 'write');
    const refused = Buffer.from(`{"_secret":"${'x'.repeat(LARGE_BYTES)}"}`);
    await expect(readBodyInTurns(refused, work)).rejects.toMatchObject({ code: 'invalid_document' });
    expect(used).toContainEqual({ ...key('s'), us: reportedUs });
    expect(scheduler.usedS('write')).toBeGreaterThanOrEqual(reportedUs / 1e6);
  });

  it('a large body of a document, a batch or a patch is parsed like a small one', async () => {
    await using scheduler = new Scheduler({}, threadOf());
    using work = scheduler.work(key('s'), 'batch');
    const document = body(LARGE_BYTES);
    expect(await readBodyInTurns(document, work)).toEqual(readDocumentBody(document));
    const operations = [
      { op: 'put', collection: 'notes', id: 'a', document: { _id: 'a', pad: 'x'.repeat(LARGE_BYTES) } },
      { op: 'patch', collection: 'notes', id: 'b', json: [{ op: 'add', path: '/n', value: 1 }] },
      { op: 'patch', collection: 'notes', id: 'c', merge: { pad: 'y'.repeat(100_000) }, if_match: '*' },
      { op: 'delete', collection: 'notes', id: 'd' },
    ];
    const batch = Buffer.from(JSON.stringify({ operations }));
    const limits = { documentBytesMax: 1_000_000 };
    expect(withHashes(await readBatchInTurns(batch, limits, ifMatchOfBody, work))).toEqual(
      withHashes(readBatch(batch, limits, ifMatchOfBody)),
    );
    const patch = Buffer.from(`{"pad":"${'z'.repeat(100_000)}"}`);
    expect(await readPatchInTurns('merge', patch, 1_000_000, work)).toMatchObject({ kind: 'large' });
    const unsound = Buffer.from(`{"_id":"${'z'.repeat(100_000)}"}`);
    await expect(readPatchInTurns('merge', unsound, 1_000_000, work)).rejects.toMatchObject({
      code: 'invalid_patch',
    });
  });
});
