import { Worker } from 'node:worker_threads';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { describe, expect, it } from 'vitest';
import { WorkerRpc } from './worker-rpc.ts';

/** A thread that answers with its arguments unless told otherwise. */
const ECHO = `
  const { parentPort } = require('node:worker_threads');
  const answer = ({ id, operation, args, expiresAtNs }, at, { length }) => {
    if (operation === 'hang') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    if (operation === 'crash') throw new Error('boom');
    if (operation === 'end') process.exit(3);
    if (operation === 'fail') return { id, failure: { code: 'key_exists', message: 'why' } };
    return { id, value: operation === 'expires' ? expiresAtNs : operation === 'place' ? [at, length] : args };
  };
  parentPort.on('message', (requests) => parentPort.postMessage(requests.map(answer)));`;

function rpcTo(source: string, options: { deadlineMs?: number; pendingMax?: number } = {}) {
  const crashes: Error[] = [];
  const rpc = new WorkerRpc(new Worker(source, { eval: true }), {
    deadlineMs: options.deadlineMs ?? PATIENT_MS,
    pendingMax: options.pendingMax ?? 16,
    onCrash: (error) => crashes.push(error),
  });
  return { rpc, crashes, [Symbol.asyncDispose]: () => rpc.close() };
}

describe('a call into the storage thread', () => {
  it('returns the answer of the thread, or the failure with its reason as the cause', async () => {
    await using echo = rpcTo(ECHO);
    expect(await echo.rpc.call('echo', [1, 'two'])).toEqual([1, 'two']);
    await expect(echo.rpc.call('fail', [])).rejects.toMatchObject({
      code: 'key_exists',
      cause: { message: 'why' },
    });
  });

  it('is sent together with the others of its turn of the event loop, in order', async () => {
    await using echo = rpcTo(ECHO);
    const calls = ['place', 'place', 'fail', 'place'].map((operation) => echo.rpc.call(operation, []));
    expect(await Promise.allSettled(calls)).toMatchObject([
      { value: [0, 4] },
      { value: [1, 4] },
      { reason: { code: 'key_exists' } },
      { value: [3, 4] },
    ]);
    expect(await echo.rpc.call('place', [])).toEqual([0, 1]);
  });

  it('fails alone when its arguments cannot be sent', async () => {
    await using echo = rpcTo(ECHO);
    const calls = [1, () => undefined, 3].map((argument) => echo.rpc.call('echo', [argument]));
    expect(await Promise.allSettled(calls)).toMatchObject([
      { value: [1] },
      { reason: { code: 'internal_error' } },
      { value: [3] },
    ]);
  });

  it('fails at its deadline while the thread hangs, and so does the close', async () => {
    await using echo = rpcTo(ECHO, { deadlineMs: 50 });
    await expect(echo.rpc.call('hang', [])).rejects.toMatchObject({ code: 'storage_unavailable' });
    await expect(echo.rpc.call('echo', [])).rejects.toMatchObject({ code: 'storage_unavailable' });
    expect(echo.crashes).toEqual([]);
  });

  it('tells the thread when it expires, so that no work begins late', async () => {
    await using echo = rpcTo(ECHO, { deadlineMs: PATIENT_MS });
    const expires = (await echo.rpc.call('expires', [])) as bigint;
    const leftMs = Number(expires - process.hrtime.bigint()) / 1e6;
    expect(leftMs).toBeGreaterThan(0);
    expect(leftMs).toBeLessThanOrEqual(PATIENT_MS);
  });

  it('fails at once as overloaded when too many wait', async () => {
    await using echo = rpcTo(ECHO, { pendingMax: 2, deadlineMs: 50 });
    const waiting = [echo.rpc.call('hang', []), echo.rpc.call('echo', [])].map((call) =>
      expect(call).rejects.toMatchObject({ code: 'storage_unavailable' }),
    );
    await expect(echo.rpc.call('echo', [])).rejects.toMatchObject({ code: 'overloaded' });
    await Promise.all(waiting);
  });

  it.each(['crash', 'end'])(
    'fails with all others when the thread ends unexpectedly (%s), now and later',
    async (how) => {
      await using echo = rpcTo(ECHO);
      const calls = [echo.rpc.call(how, []), echo.rpc.call('echo', [])];
      for (const call of calls) await expect(call).rejects.toMatchObject({ code: 'storage_unavailable' });
      await expect(echo.rpc.call('echo', [])).rejects.toMatchObject({ code: 'storage_unavailable' });
      expect(echo.crashes).toHaveLength(1);
    },
  );
});

it('closing twice has the effect of closing once, and does not count as a crash', async () => {
  const { rpc, crashes } = rpcTo(ECHO);
  await Promise.all([rpc.close(), rpc.close()]);
  expect(crashes).toEqual([]);
  await expect(rpc.call('echo', [])).rejects.toMatchObject({ code: 'storage_unavailable' });
});
