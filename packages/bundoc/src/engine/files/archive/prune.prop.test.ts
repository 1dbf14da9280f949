import { randomBytes } from 'node:crypto';
import { runs } from '@bundoc/shared/testing/long';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ObjectsInMemory } from '../../../testing/objects-in-memory.ts';
import { ArchiveReader } from './lineage.ts';
import {
  ArchiveDamaged,
  ObjectBuilder,
  type ObjectHead,
  type ObjectId,
  objectKey,
  type ShippedObject,
} from './object.ts';
import { planPrune, prune } from './prune.ts';
import { NothingToRestore, planRestore } from './restore.ts';

const STORAGE = Buffer.alloc(16, 7);
/** Once branches no longer share objects, a repetition may delete a few more. */
const TIMES_MAX = 5;

type ChainStep =
  /** A process ships; `round` is how far back the first object is that a round needs, if one ends. */
  | { readonly kind: 'ship'; readonly waitMs: number; readonly round: number | undefined }
  /**
   * A process starts with the position of an earlier object, or of the last one. One whose object was pruned
   * is from before the retention: BunKMS refuses it until it takes over.
   */
  | { readonly kind: 'start'; readonly at: number }
  /** A process starts without a position, on a machine that was taken over or not. */
  | { readonly kind: 'root'; readonly takesOver: boolean }
  /** An earlier process ships on. */
  | { readonly kind: 'switch'; readonly to: number }
  /** Prunes up to an earlier time, and is interrupted after some objects. */
  | { readonly kind: 'prune'; readonly backMs: number; readonly objects: number };

const chainStep: fc.Arbitrary<ChainStep> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant('ship' as const),
      waitMs: fc.integer({ min: 0, max: 3 }),
      round: fc.option(fc.integer({ min: 0, max: 4 }), { nil: undefined }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('start' as const), at: fc.nat(40) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('root' as const), takesOver: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('switch' as const), to: fc.nat(5) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('prune' as const),
      backMs: fc.nat(40),
      objects: fc.nat(30),
    }),
  },
);

/** A process, with what it has shipped last. */
interface Process {
  readonly epoch: string;
  readonly last: ObjectHead | undefined;
  readonly hash: Buffer | undefined;
  readonly n: number;
  readonly takenOverMs: number;
}

class Chains {
  readonly objects = new ObjectsInMemory();
  readonly reader = new ArchiveReader(this.objects, STORAGE);
  readonly #shipped: Process[] = [];
  readonly #processes: Process[] = [];
  #at = 0;
  nowMs = 1_000;

  async step(step: ChainStep): Promise<void> {
    switch (step.kind) {
      case 'ship':
        return await this.#ship(step.waitMs, step.round);
      case 'start': {
        const from = this.#shipped[this.#shipped.length - 1 - (step.at % Math.max(1, this.#shipped.length))];
        if (from?.last !== undefined && this.#has(from.last)) this.#begin({ ...from, epoch: newEpoch() });
        return;
      }
      case 'root':
        return this.#root(step.takesOver);
      case 'switch':
        this.#at = step.to % Math.max(1, this.#processes.length);
        return;
      case 'prune':
        return await this.pruneAt(this.nowMs - step.backMs, step.objects);
    }
  }

  #has(id: ObjectId): boolean {
    return this.objects.objects.has(objectKey(STORAGE, id));
  }

  #begin(process: Process): void {
    this.#at = this.#processes.push(process) - 1;
  }

  #root(takesOver: boolean): void {
    const n = Math.max(0, ...this.#shipped.map((one) => one.n));
    const takenOverMs = takesOver ? this.nowMs : (this.#processes[this.#at]?.takenOverMs ?? 0);
    this.#begin({ epoch: newEpoch(), last: undefined, hash: undefined, n, takenOverMs });
  }

  async #ship(waitMs: number, back: number | undefined): Promise<void> {
    if (this.#processes.length === 0) this.#root(false);
    const process = this.#processes[this.#at];
    if (process === undefined || (process.last !== undefined && !this.#has(process.last))) return;
    this.nowMs += waitMs;
    const { last, epoch, takenOverMs } = process;
    const n = process.n + 1;
    const before: ShippedObject | undefined = last &&
      process.hash && { epoch: last.epoch, n: last.n, hash: process.hash };
    const oldest = last?.round?.first ?? this.#rootOf.get(last ? last.epoch : '') ?? n;
    const round =
      back === undefined ? last?.round : { endedIn: n, first: Math.max(oldest, n - back), segment: 1 };
    const place = { segment: 1, frame: n };
    const head: ObjectHead = {
      storageId: STORAGE,
      epoch,
      n,
      before,
      timeMs: Math.max(this.nowMs, last?.timeMs ?? 0),
      end: place,
      log: place,
      round,
      takenOverMs,
    };
    const { bytes, hash } = new ObjectBuilder().finish(head);
    await this.objects.put(objectKey(STORAGE, { epoch, n }), bytes);
    this.#rootOf.set(epoch, last === undefined ? n : (this.#rootOf.get(last.epoch) ?? n));
    const now = { ...process, last: head, hash, n };
    this.#processes[this.#at] = now;
    this.#shipped.push(now);
  }

  /** The number of the root of the chain of an epoch. */
  readonly #rootOf = new Map<string, number>();

  /** Checks that an interruption leaves each moment from the limit on with the same objects. */
  async pruneAt(limitMs: number, objects: number): Promise<void> {
    if (this.objects.objects.size === 0) return;
    const before = await this.#momentsFrom(limitMs);
    let interrupted = objects;
    for (let time = 0; ; time++, interrupted = Number.POSITIVE_INFINITY) {
      const plan = await planPrune(this.reader, limitMs);
      if (plan.objects.length === 0) return;
      expect(time).toBeLessThan(TIMES_MAX);
      await prune(this.objects, STORAGE, { ...plan, objects: plan.objects.slice(0, interrupted) });
      expect(await this.#momentsFrom(limitMs)).toEqual(before);
    }
  }

  /** What a restore of each moment reads. */
  async #momentsFrom(limitMs: number): Promise<readonly string[]> {
    const moments: string[] = [];
    for (let atMs = limitMs; atMs <= this.nowMs + 1; atMs++) moments.push(await this.#moment(atMs));
    return moments;
  }

  async #moment(atMs: number): Promise<string> {
    try {
      const { chain, last, round } = await planRestore(this.reader, atMs);
      const read: string[] = [];
      for await (const { hash } of this.reader.objects(chain, round.first, last.n))
        read.push(hash.toString('hex', 0, 4));
      return `${last.epoch}-${last.n}: ${read.join(' ')}`;
    } catch (error) {
      if (error instanceof NothingToRestore || error instanceof ArchiveDamaged) return 'nothing';
      throw error;
    }
  }
}

function newEpoch(): string {
  return randomBytes(16).toString('hex');
}

describe('a prune', () => {
  it('keeps each moment from the limit on, with branches, take-overs and interruptions', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(chainStep, { minLength: 10, maxLength: 60 }), async (steps) => {
        const chains = new Chains();
        for (const step of steps) await chains.step(step);
        await chains.pruneAt(chains.nowMs - 5, 3);
        await chains.pruneAt(chains.nowMs + 1, 1);
      }),
      { numRuns: runs(300, 20_000), interruptAfterTimeLimit: runs(20_000, 600_000) },
    );
  });
});
