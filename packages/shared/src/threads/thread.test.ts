import { describe, expect, it } from 'vitest';
import { AppError } from '../contract/app-error.ts';
import type { EchoOperations } from '../testing/echo-thread.ts';
import { Thread, ThreadFailed } from './thread.ts';

function echoThread() {
  const crashes: Error[] = [];
  const thread = new Thread<EchoOperations>({
    name: 'echo',
    from: import.meta.url,
    module: '../testing/echo-thread',
    onCrash: (error) => crashes.push(error),
  });
  return { thread, crashes, [Symbol.asyncDispose]: () => thread.close(1_000) };
}

describe('a call of a thread', () => {
  it('returns what the function returns, or what its promise resolves to', async () => {
    await using echo = echoThread();
    expect(await echo.thread.call('echo', [1, 'two'])).toEqual([1, 'two']);
    expect(await echo.thread.call('later', ['three'])).toBe('three');
  });

  it('throws an AppError of the function with its parts and the reason, any other error with its code', async () => {
    await using echo = echoThread();
    const refused = await echo.thread.call('refuse', []).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(AppError);
    expect(refused).toMatchObject({
      code: 'key_exists',
      message: 'key_exists: what',
      detail: 'what',
      retryAfterS: 2,
      cause: { message: 'why' },
    });
    await expect(echo.thread.call('fail', [])).rejects.toMatchObject({ code: 'ENOSPC', message: 'why' });
  });

  it('is answered in order, together with the others of its turn of the event loop', async () => {
    await using echo = echoThread();
    const order: unknown[] = [];
    const calls = [1, 2, 3].map((n) => echo.thread.call('echo', [n]).then((answer) => order.push(...answer)));
    const refused = expect(echo.thread.call('refuse', [])).rejects.toBeInstanceOf(AppError);
    expect(echo.thread.pending).toBe(4);
    await Promise.all([...calls, refused]);
    expect(order).toEqual([1, 2, 3]);
    expect(echo.thread.pending).toBe(0);
  });

  it('fails alone when its arguments cannot be sent', async () => {
    await using echo = echoThread();
    const calls = [1, () => undefined, 3].map((argument) => echo.thread.call('echo', [argument]));
    expect(await Promise.allSettled(calls)).toMatchObject([
      { value: [1] },
      { reason: { name: 'DataCloneError' } },
      { value: [3] },
    ]);
  });

  it('fails alone when its answer or its error cannot be copied', async () => {
    await using echo = echoThread();
    const { thread } = echo;
    const calls = [
      thread.call('echo', [1]),
      ...[false, true].map((isError) => thread.call('uncopied', [isError])),
    ];
    expect((await Promise.allSettled(calls)).map(({ status }) => status)).toEqual([
      ...['fulfilled', 'rejected', 'rejected'],
    ]);
    expect(await thread.call('echo', [2])).toEqual([2]);
    expect(echo.crashes).toEqual([]);
  });

  it('moves the memory that it transfers, and copies all other', async () => {
    await using echo = echoThread();
    const [moved, copied] = [new Uint8Array(3).fill(1), new Uint8Array(3).fill(2)];
    expect(await echo.thread.call('echo', [moved, copied], { transfer: [moved.buffer] })).toEqual([
      new Uint8Array(3).fill(1),
      copied,
    ]);
    expect([moved.length, copied.length]).toEqual([0, 3]);
  });

  it('fails at its deadline while the thread hangs, and never begins later; the close does not wait', async () => {
    await using echo = echoThread();
    const calls = (['hang', 'end'] as const).map((name) => echo.thread.call(name, [], { deadlineMs: 50 }));
    for (const call of calls) await expect(call).rejects.toBeInstanceOf(ThreadFailed);
    expect(echo.crashes).toEqual([]);
  });

  it.each(['crash', 'end'] as const)(
    'fails with all others when the thread ends unexpectedly (%s), now and later',
    async (how) => {
      await using echo = echoThread();
      const calls = (['never', how] as const).map((name) => echo.thread.call(name, []));
      for (const call of calls) await expect(call).rejects.toBeInstanceOf(ThreadFailed);
      expect(echo.thread.hasEnded).toBe(true);
      await expect(echo.thread.call('echo', [])).rejects.toBeInstanceOf(ThreadFailed);
      expect(echo.crashes).toHaveLength(1);
    },
  );
});

it('a thread finishes earlier calls before it closes, accepts no later ones, and has not crashed', async () => {
  const { thread, crashes } = echoThread();
  const call = thread.call('echo', [1]);
  await Promise.all([thread.close(), thread.close()]);
  expect(await call).toEqual([1]);
  await expect(thread.call('echo', [])).rejects.toBeInstanceOf(ThreadFailed);
  expect(crashes).toEqual([]);
});

it('a thread that is terminated rejects its calls with the reason', async () => {
  const { thread, crashes } = echoThread();
  const call = expect(thread.call('hang', [])).rejects.toThrow('given up');
  await thread.terminate(new Error('given up'));
  await call;
  expect(crashes).toEqual([]);
});
