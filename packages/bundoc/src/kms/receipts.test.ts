import { AppError } from '@bundoc/shared/contract/app-error';
import { RECEIPTS_MAX } from '@bundoc/shared/contract/kms-receipt';
import { createLogger } from '@bundoc/shared/logs/logger';
import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ReceiptsInMemory, receiptOf, receiptText } from '../testing/kms-receipts.ts';
import { Receipts } from './receipts.ts';
import { formatReceipts, parseReceiptsText } from './receipts-text.ts';

const OTHER = { installation: 'fedcba9876543210' };

async function load(store = new ReceiptsInMemory()) {
  const lines: Record<string, unknown>[] = [];
  const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
  const logger = createLogger({ service: 'bundoc', level: 'debug', destination });
  const clock = new FakeClock();
  const receipts = await Receipts.load({ store, clock, logger });
  return { receipts, store, clock, lines };
}

const storedIn = ({ text }: ReceiptsInMemory) => parseReceiptsText(String(text));
const nextSecond = () => vi.advanceTimersByTimeAsync(1_000);

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
});
afterEach(() => {
  vi.useRealTimers();
});

describe('the receipts of BunKMS', () => {
  it('are none before the first answer', async () => {
    const { receipts, store } = await load();
    expect([receipts.header(), receipts.seq]).toEqual([undefined, undefined]);
    await nextSecond();
    expect(store.writes).toBe(0);
  });

  it('are the newest one, in whatever order answers arrive', async () => {
    const { receipts } = await load();
    for (const seq of [7, 9, 8]) receipts.take(receiptText(seq));
    expect([receipts.header(), receipts.seq]).toEqual([receiptText(9), 9]);
    // A restore ends the earlier receipts, though its records have smaller numbers.
    receipts.take(receiptText(3, { epoch: 1_000 }));
    receipts.take(receiptText(12));
    expect(receipts.header()).toBe(receiptText(3, { epoch: 1_000 }));
  });

  it('stay when an answer names another record of the same number', async () => {
    const { receipts } = await load();
    receipts.take(receiptText(7));
    receipts.take(receiptText(7, { hash: 'f'.repeat(64) }));
    expect(receipts.header()).toBe(receiptText(7));
  });

  it('are one for each installation, of the four that answered last', async () => {
    const { receipts } = await load();
    const ids = Array.from({ length: RECEIPTS_MAX + 1 }, (_, n) => String(n).repeat(16));
    for (const installation of ids.slice(0, -1)) receipts.take(receiptText(1, { installation }));
    // The first one answers again, so the second one answered longest ago.
    for (const installation of [ids[0], ids.at(-1)])
      receipts.take(receiptText(2, { installation: installation! }));
    expect(receipts.header()).toBe(
      [
        ...ids.slice(2, -1).map((installation) => receiptText(1, { installation })),
        ...[ids[0], ids.at(-1)].map((installation) => receiptText(2, { installation: installation! })),
      ].join(','),
    );
  });

  it.each([
    ['malformed', 'x'],
    ['empty', ''],
    ['several', `${receiptText(9)},${receiptText(9)}`],
    ['repeated', [receiptText(9), receiptText(9)]],
    ['too long', `${receiptText(9)}${'9'.repeat(10_000)}`],
  ])('ignore a header that is %s, and log it once', async (_name, header) => {
    const { receipts, lines } = await load();
    receipts.take(receiptText(7));
    for (let n = 0; n < 100; n++) receipts.take(header);
    expect(receipts.header()).toBe(receiptText(7));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({
      level: 'warn',
      msg: 'the receipt in an answer of BunKMS is ignored: it is malformed',
    });
  });

  it('are written at most once a second, and only when one is new', async () => {
    const { receipts, store } = await load();
    for (let seq = 1; seq <= 50; seq++) receipts.take(receiptText(seq));
    await vi.advanceTimersByTimeAsync(999);
    expect(store.writes).toBe(0);
    await vi.advanceTimersByTimeAsync(1);
    expect(store.writes).toBe(1);
    expect(storedIn(store)).toEqual([receiptOf(50)]);
    receipts.take(receiptText(50));
    receipts.take(receiptText(49));
    await nextSecond();
    expect(store.writes).toBe(1);
    receipts.take(receiptText(51));
    await nextSecond();
    expect(store.writes).toBe(2);
    expect(storedIn(store)).toEqual([receiptOf(51)]);
  });

  it('do not wait for a write to the storage, and at most one write runs at a time', async () => {
    const { receipts, store } = await load();
    const slow = Promise.withResolvers<void>();
    store.beforeStored = () => slow.promise;
    receipts.take(receiptText(1));
    await nextSecond();
    receipts.take(receiptText(2));
    await nextSecond();
    expect([store.writes, receipts.header()]).toEqual([1, receiptText(2)]);
    slow.resolve();
    await receipts.save();
    expect(storedIn(store)).toEqual([receiptOf(1)]);
    await nextSecond();
    expect([store.writes, storedIn(store)]).toEqual([2, [receiptOf(2)]]);
  });

  it('are written again after a failure, which is logged once', async () => {
    const { receipts, store, lines } = await load();
    store.beforeStored = () => Promise.reject(new AppError('disk_full'));
    receipts.take(receiptText(1));
    for (let n = 0; n < 5; n++) await nextSecond();
    expect(store.writes).toBe(5);
    expect(lines.map(({ msg }) => msg)).toEqual([
      'the receipts of BunKMS were not written; trying again: disk_full',
    ]);
    store.beforeStored = async () => undefined;
    await nextSecond();
    await nextSecond();
    expect([store.writes, storedIn(store)]).toEqual([6, [receiptOf(1)]]);
  });

  it('are written when the service closes, even during a write, and not later', async () => {
    const { receipts, store } = await load();
    const slow = Promise.withResolvers<void>();
    store.beforeStored = () => slow.promise;
    receipts.take(receiptText(1));
    await nextSecond();
    receipts.take(receiptText(2));
    const closed = receipts[Symbol.asyncDispose]();
    expect(store.writes).toBe(1);
    slow.resolve();
    await closed;
    expect(storedIn(store)).toEqual([receiptOf(2)]);
    receipts.take(receiptText(3));
    await nextSecond();
    expect(storedIn(store)).toEqual([receiptOf(2)]);
  });

  it('are read from the storage, and sent, after a restart', async () => {
    const { receipts, store } = await load();
    receipts.take(receiptText(7));
    receipts.take(receiptText(3, OTHER));
    await receipts[Symbol.asyncDispose]();
    const later = await load(store);
    expect(later.receipts.header()).toBe(`${receiptText(7)},${receiptText(3, OTHER)}`);
    // An older answer replaces nothing.
    later.receipts.take(receiptText(6));
    await later.receipts[Symbol.asyncDispose]();
    expect(storedIn(store)).toContainEqual(receiptOf(7));
  });

  it('are not lost to a forged one that somebody stores while the service runs', async () => {
    const { receipts, store, lines } = await load();
    receipts.take(receiptText(7));
    store.text = formatReceipts([receiptOf(9_000)]);
    await nextSecond();
    expect(receipts.header()).toBe(receiptText(9_000));
    receipts.take(receiptText(8));
    receipts.forget(receiptText(9_000));
    expect(receipts.header()).toBe(receiptText(8));
    expect(lines.at(-1)?.['msg']).toMatch('someone may have planted them in the storage');
    await nextSecond();
    expect(storedIn(store)).toEqual([receiptOf(8)]);
  });

  it('the receipts of another node are sent, and are kept when BunKMS accepts them', async () => {
    const { receipts, store } = await load();
    receipts.take(receiptText(7));
    store.text = formatReceipts([receiptOf(9)]);
    await nextSecond();
    expect(receipts.header()).toBe(receiptText(9));
    receipts.take(receiptText(12));
    await nextSecond();
    expect([receipts.header(), storedIn(store)]).toEqual([receiptText(12), [receiptOf(12)]]);
  });

  it('do not keep the service from closing while the storage does not answer', async () => {
    const { receipts, store } = await load();
    store.beforeStored = () => new Promise(() => undefined);
    receipts.take(receiptText(1));
    await receipts[Symbol.asyncDispose]();
    expect(storedIn).toThrow();
  });

  const five = Array.from({ length: RECEIPTS_MAX + 1 }, (_, seq) => receiptText(seq));
  it.each([
    '',
    'planted-secret {',
    'null',
    '[]',
    '{"format":1}',
    '{"format":0,"receipts":[]}',
    '{"format":1,"receipts":["planted-secret"]}',
    '{"format":1,"receipts":[7]}',
    `{"format":1,"receipts":["${receiptText(7)}"],"planted-secret":1}`,
    JSON.stringify({ format: 1, receipts: five }),
    '[[[['.repeat(10_000),
    '{"format":2,"receipts":[],"planted-secret":true}',
  ])('are none where the storage holds something else, which is logged and replaced: %.30s', async (text) => {
    const store = new ReceiptsInMemory();
    store.text = text;
    const { receipts, lines } = await load(store);
    expect(receipts.header()).toBeUndefined();
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({
      level: 'warn',
      msg: `the kept receipts of BunKMS cannot be read: beginning without them: they are damaged`,
    });
    expect(JSON.stringify(lines)).not.toContain('planted-secret');
    receipts.take(receiptText(1));
    await nextSecond();
    expect(storedIn(store)).toEqual([receiptOf(1)]);
  });

  it('are none while the storage cannot be read, and the stored ones stay', async () => {
    const store = new ReceiptsInMemory(receiptOf(9));
    store.read = () => Promise.reject(new AppError('storage_unavailable'));
    const { receipts, lines } = await load(store);
    expect([receipts.header(), lines.length]).toEqual([undefined, 1]);
    receipts.take(receiptText(8));
    await nextSecond();
    expect(storedIn(store)).toEqual([receiptOf(9)]);
  });

  it('are forgotten, in the storage as well, when BunKMS refuses them, except for newer ones', async () => {
    const forged = receiptOf(Number.MAX_SAFE_INTEGER);
    const { receipts, store, lines } = await load(new ReceiptsInMemory(forged, receiptOf(4, OTHER)));
    const sent = String(receipts.header());
    receipts.take(receiptText(5, OTHER));
    receipts.forget(sent);
    // The refusals of concurrent calls say nothing new.
    receipts.forget(sent);
    expect(receipts.header()).toBe(receiptText(5, OTHER));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({
      level: 'error',
      records: 'record 9007199254740991 of installation 0123456789abcdef, epoch 0',
      msg: expect.stringContaining('BunKMS refuses receipts'),
    });
    expect(JSON.stringify(lines)).not.toMatch(new RegExp(`${forged.hash}|${forged.mac}`));
    await nextSecond();
    expect(storedIn(store)).toEqual([receiptOf(5, OTHER)]);
    receipts.take(receiptText(1));
    await nextSecond();
    expect(storedIn(store)).toEqual([receiptOf(5, OTHER), receiptOf(1)]);
  });

  it('receipts that BunKMS refuses are removed from the storage, even if no other receipt follows', async () => {
    const { receipts, store } = await load(new ReceiptsInMemory(receiptOf(7)));
    receipts.forget(String(receipts.header()));
    await nextSecond();
    expect([receipts.header(), storedIn(store)]).toEqual([undefined, []]);
  });

  it('receipts that BunKMS refuses repeatedly are logged once a minute', async () => {
    const { receipts, clock, lines } = await load();
    for (let seq = 1; seq <= 100; seq++) {
      receipts.take(receiptText(seq));
      receipts.forget(receiptText(seq));
    }
    expect(lines).toHaveLength(1);
    clock.advance(60_000);
    receipts.take(receiptText(101));
    receipts.forget(receiptText(101));
    expect(lines[1]).toMatchObject({ count: 99 });
  });
});

describe('the receipts of nodes that share a storage', () => {
  it('are the newest of all nodes, even when a node with older ones writes last', async () => {
    const store = new ReceiptsInMemory();
    const [one, other] = [await load(store), await load(store)];
    other.receipts.take(receiptText(9));
    one.receipts.take(receiptText(7));
    one.receipts.take(receiptText(3, OTHER));
    await other.receipts.save();
    await one.receipts.save();
    expect(storedIn(store)).toEqual([receiptOf(9), receiptOf(3, OTHER)]);
  });

  it('stay the newest while more than four installations answer', async () => {
    const store = new ReceiptsInMemory();
    const { receipts } = await load(store);
    store.text = formatReceipts([
      receiptOf(9),
      ...['1', '2', '3'].map((id) => receiptOf(1, { installation: id.repeat(16) })),
    ]);
    receipts.take(receiptText(4, OTHER));
    receipts.take(receiptText(8));
    await receipts.save();
    // Both that answered last are there, and of one of them the receipt of the other node.
    expect(storedIn(store).slice(-2)).toEqual([receiptOf(4, OTHER), receiptOf(9)]);
    expect(storedIn(store)).toHaveLength(RECEIPTS_MAX);
  });

  it('recover from a planted one once each node has sent it', async () => {
    const forged = receiptOf(Number.MAX_SAFE_INTEGER);
    const store = new ReceiptsInMemory(forged);
    const nodes = [await load(store), await load(store), await load(store)];
    for (const { receipts } of nodes) {
      receipts.forget(String(receipts.header()));
      receipts.take(receiptText(7));
      await receipts.save();
      // One that has not sent it yet puts it back.
      for (const node of nodes) {
        node.receipts.take(receiptText(2, OTHER));
        await node.receipts.save();
      }
    }
    expect(storedIn(store).filter(({ installation }) => installation !== OTHER.installation)).toEqual([
      receiptOf(7),
    ]);
  });
});
