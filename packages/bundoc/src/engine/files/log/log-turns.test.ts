import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ENTRY_BYTES, REPEAT_BYTES } from './frame.ts';
import { HandleIndex } from './handle-index.ts';
import { FRAME_BODY_BYTES_MAX } from './layout.ts';
import { type LogOptions, logLimits, type PartSource } from './log-api.ts';
import { type Attached, LogTurns } from './log-turns.ts';
import type { Segments } from './segments.ts';

const KIB = 1_024;
const MIB = 1_048_576;
const FRAME = FRAME_BODY_BYTES_MAX;
const SMALL = 16 * KIB;
const CHUNK = 256 * KIB;
const ZEROS = Buffer.alloc(64 * MIB);

/** A project whose commits are numbers of bytes. */
class Project implements PartSource {
  readonly handle: string;
  readonly project = '';
  readonly keys = { subkey: () => expect.fail('nothing is sealed') };
  readonly makesRoom = false;
  readonly waiting: number[] = [];
  /** The durable commits in order. */
  readonly done: number[] = [];
  readonly attached: Attached;
  readonly #turns: LogTurns;

  constructor(turns: LogTurns, at: number) {
    this.#turns = turns;
    this.handle = String(at);
    this.attached = turns.attach(this, undefined);
  }

  get nextBytes(): number | undefined {
    return this.waiting[0];
  }

  commit(...bytes: number[]): void {
    this.waiting.push(...bytes);
    this.#turns.join(this.attached);
  }

  take(bytesMax: number) {
    let count = 0;
    for (let bytes = 0; count < this.waiting.length; count++) {
      bytes += this.waiting[count] as number;
      if (count > 0 && bytes > bytesMax) break;
    }
    const taken = this.waiting.splice(0, count);
    if (count === 0) return undefined;
    const plaintext = [
      ZEROS.subarray(
        0,
        taken.reduce((sum, bytes) => sum + bytes),
      ),
    ];
    const durable = () => void this.done.push(...taken);
    const fail = (): void => expect.fail('nothing fails');
    const other = { answer: () => undefined, refused: fail, unknown: fail };
    return { kind: 'data' as const, plaintext, keyVersion: 1, commits: count, durable, ...other };
  }

  refuse(): void {
    expect.fail('nothing is refused');
  }

  fail(): void {
    expect.fail('nothing fails');
  }
}

function world(projects: number) {
  const options = { limits: logLimits(1_024 * MIB), clock: new FakeClock() } as unknown as LogOptions;
  const turns = new LogTurns(options, { fill: 0 } as Segments, new HandleIndex());
  /** Writes a frame. @returns the bytes of each project in it. */
  const frame = (bytesMax = FRAME) => {
    const group = turns.take(bytesMax, false);
    const bytes = new Map(group.map((sending) => [sending.attached.source as PartSource, sending.bytes]));
    expect(bytes.size, 'one part of a project').toBe(group.length);
    const sum = group.reduce((all, sending) => all + sending.bytes + ENTRY_BYTES + REPEAT_BYTES, 0);
    expect(sum).toBeLessThanOrEqual(bytesMax + ENTRY_BYTES + REPEAT_BYTES);
    for (const { attached, part, isLast, bytes } of group) {
      if (isLast) {
        attached.large = undefined;
        part.durable({ segment: 1, frame: 1, tag: Buffer.alloc(16) });
      } else turns.sent(attached, bytes);
    }
    return bytes;
  };
  return { turns, frame, projects: Array.from({ length: projects }, (_, at) => new Project(turns, at)) };
}

describe('the turns of a log', () => {
  it('delay a small commit only by the frame in flight, even if another project writes 32 MiB', () => {
    const { frame, projects } = world(2);
    const [large, small] = projects as [Project, Project];
    large.commit(32 * MIB);
    for (let at = 1; at <= 129; at++) {
      // It arrives while a frame is being written.
      small.commit(SMALL);
      expect(frame().get(large), `frame ${at}`).toBe(at <= 128 ? CHUNK : undefined);
      expect(small.done).toHaveLength(at);
    }
    expect(large.done).toEqual([32 * MIB]);
  });

  it('take small commits in the order of arrival until they use half of the frame', () => {
    const { frame, projects } = world(100);
    const large = projects.slice(0, 4);
    const small = projects.slice(4);
    for (const project of large) project.commit(4 * MIB);
    for (const project of small) project.commit(SMALL);
    for (const from of [0, 31, 62])
      expect([...frame().keys()].filter((one) => small.includes(one as Project))).toEqual(
        small.slice(from, from + 31),
      );
  });

  it('take one chunk of each large commit in turn for the other half of the frame', () => {
    const { frame, projects } = world(70);
    const [a, b, c, ...small] = projects as [Project, Project, Project, ...Project[]];
    for (const project of [a, b, c]) project.commit(8 * MIB);
    for (const project of small) project.commit(...Array<number>(99).fill(SMALL));
    const large = [1, 2, 3].map(() => {
      const written = frame();
      return [0, 1, 2].filter((at) => written.get(projects[at]!) === CHUNK);
    });
    expect(large).toEqual([
      [0, 1],
      [0, 2],
      [1, 2],
    ]);
  });

  it('let one kind of commits use the half that the other leaves', () => {
    const { frame, projects } = world(41);
    const [large, ...small] = projects as [Project, ...Project[]];
    large.commit(900 * KIB);
    expect(frame().get(large)).toBe(900 * KIB);
    large.commit(100 * KIB);
    for (const project of small) project.commit(SMALL);
    expect(frame().size).toBe(41);
    const [alone] = small as [Project];
    alone.commit(...Array<number>(60).fill(SMALL));
    expect(frame().get(alone)).toBe(60 * SMALL);
  });

  it('ask a project for at most its part of a frame while others wait', () => {
    const { frame, projects } = world(64);
    for (const project of projects) project.commit(...Array<number>(64).fill(SMALL));
    const [first, second] = [frame(), frame()];
    expect(new Set([...first.values(), ...second.values()])).toEqual(new Set([SMALL]));
    expect(new Set([...first.keys(), ...second.keys()]).size).toBe(64);
  });

  it('starve nobody and keep the order of each project, whatever arrives', () => {
    const bytes = fc.oneof(
      { weight: 6, arbitrary: fc.integer({ min: 0, max: SMALL }) },
      { weight: 2, arbitrary: fc.integer({ min: SMALL + 1, max: 2 * CHUNK }) },
      { weight: 1, arbitrary: fc.integer({ min: MIB, max: 4 * MIB }) },
    );
    const arrival = fc.tuple(fc.nat({ max: 47 }), bytes);
    const step = fc.record({
      arrivals: fc.array(arrival, { maxLength: 40 }),
      bytesMax: fc.oneof(fc.constant(FRAME), fc.integer({ min: CHUNK, max: FRAME })),
    });
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 30 }), (steps) => {
        const { turns, frame, projects } = world(48);
        const given = projects.map((): number[] => []);
        /** How many frames a project has waited, counted in full frames. */
        const waits = new Map<Project, number>();
        const write = (bytesMax: number) => {
          const asked = frame(bytesMax);
          for (const project of projects) {
            const isWaiting = project.waiting.length > 0 || project.attached.large !== undefined;
            const isPassed = isWaiting && !asked.has(project);
            const waited = isPassed ? (waits.get(project) ?? 0) + (bytesMax === FRAME ? 1 : 0) : 0;
            waits.set(project, waited);
            // Half a frame has at least 31 small parts, and two large ones.
            const isSmall = project.attached.large === undefined && project.nextBytes! <= SMALL;
            expect(waited).toBeLessThanOrEqual(isSmall ? 2 : 24);
          }
        };
        for (const { arrivals, bytesMax } of steps) {
          for (const [at, size] of arrivals) {
            given[at]!.push(size);
            projects[at]!.commit(size);
          }
          write(bytesMax);
        }
        while (turns.isAnyoneWaiting) write(FRAME);
        expect(projects.map(({ done }) => done)).toEqual(given);
      }),
    );
  });
});
