import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CommitLanes,
  FAILED_ALONE_MS,
  type LaneBatch,
  type LaneCommit,
  type LaneMember,
  type Leaving,
  laneSlots,
  QUEUED_MS_MAX,
} from './commit-lanes.ts';

interface Project {
  readonly name: string;
}
interface Commit extends LaneCommit {
  readonly n: number;
}

const SLOTS = { small: 2, large: 2, alone: 4 };
const MIB = 1_048_576;
const projectsOf = (count: number): Project[] => Array.from({ length: count }, (_, n) => ({ name: `p${n}` }));
const commitOf = (n = 0, { bytes = 1_000, writes = 1, queuedMs = 0, subject = 's' } = {}): Commit => ({
  n,
  bytes,
  subject,
  writes: Array(writes).fill(undefined),
  queuedMs,
});
const DONE: Leaving<Commit> = { left: [], next: 'any' };
const namesOf = (batch: LaneBatch<Project, Commit> | undefined) =>
  batch?.members.map(({ project }) => project.name);

describe('lanes of commits', () => {
  const lanesOf = (projects: readonly Project[], make: (n: number) => Commit = commitOf) => {
    const lanes = new CommitLanes<Project, Commit>(SLOTS);
    for (const [n, project] of projects.entries()) lanes.add(project, make(n), 0);
    return lanes;
  };

  it('put the commits of up to 256 projects, 512 writes and 1 MiB into one transaction', () => {
    expect(lanesOf(projectsOf(300)).take()?.members).toHaveLength(256);
    expect(lanesOf(projectsOf(300), (n) => commitOf(n, { writes: 4 })).take()?.members).toHaveLength(128);
    expect(lanesOf(projectsOf(300), (n) => commitOf(n, { bytes: MIB / 16 })).take()?.members).toHaveLength(
      16,
    );
  });

  it('put few projects into two small transactions, and more into one until 64 wait', () => {
    const projects = projectsOf(100);
    const few = lanesOf(projects.slice(0, 4));
    expect(namesOf(few.take())).toHaveLength(4);
    few.add(projects[4] as Project, commitOf(), 0);
    expect(namesOf(few.take())).toEqual(['p4']);

    const many = lanesOf(projects.slice(0, 30));
    const first = many.take() as LaneBatch<Project, Commit>;
    for (const project of projects.slice(30, 93)) many.add(project, commitOf(), 0);
    expect(many.take()).toBeUndefined();
    many.add(projects[93] as Project, commitOf(), 0);
    const second = many.take() as LaneBatch<Project, Commit>;
    expect(namesOf(second)).toHaveLength(64);
    for (const batch of [first, second])
      many.end(
        batch,
        batch.members.map(() => DONE),
        0,
      );
    many.add(projects[0] as Project, commitOf(), 0);
    expect(namesOf(many.take())).toEqual(['p0']);
  });

  it('begin a second small transaction when the first is stalled', () => {
    const projects = projectsOf(30);
    const lanes = lanesOf(projects.slice(0, 20));
    const first = lanes.take() as LaneBatch<Project, Commit>;
    lanes.add(projects[20] as Project, commitOf(), 0);
    expect(lanes.take()).toBeUndefined();
    lanes.stalls(first);
    const second = lanes.take() as LaneBatch<Project, Commit>;
    expect(namesOf(second)).toEqual(['p20']);
    lanes.add(projects[21] as Project, commitOf(), 0);
    lanes.end(second, [DONE], 0);
    expect(namesOf(lanes.take())).toEqual(['p21']);
  });

  it('give each project its turn before one with many commits fills the transaction', () => {
    const [many, ...others] = projectsOf(10);
    const lanes = new CommitLanes<Project, Commit>(SLOTS);
    for (let n = 0; n < 600; n++) lanes.add(many as Project, commitOf(n), 0);
    for (const project of others) lanes.add(project, commitOf(), 0);
    const batch = lanes.take();
    expect(namesOf(batch)).toHaveLength(10);
    expect(batch?.members[0]?.commits).toHaveLength(512 - 9);
  });

  it.each([
    ['small', 300, 1_000, 256],
    ['large', 40, MIB, 8],
  ])('(%s) give a subject with one project as much as a subject with many', (kind, count, bytes, seats) => {
    const lanes = new CommitLanes<Project, Commit>(SLOTS);
    for (const project of projectsOf(count)) lanes.add(project, commitOf(0, { bytes, subject: 'many' }), 0);
    const lone = { name: 'lone' };
    for (let n = 0; n < 600; n++) lanes.add(lone, commitOf(n, { bytes, subject: 'lone' }), 0);
    const batch = lanes.take();
    expect(batch?.kind).toBe(kind);
    const commits = batch?.members.map(({ project, commits: some }) => [project.name, some.length]) ?? [];
    const ofLone = Number(commits.find(([name]) => name === 'lone')?.[1]);
    expect(ofLone).toBeGreaterThanOrEqual(Math.floor(seats / 2) - 1);
  });

  it('give a subject with a project that must run alone one of the next two transactions, however many projects others have', () => {
    const lanes = new CommitLanes<Project, Commit>({ ...SLOTS, alone: 1 });
    const projects = [...projectsOf(50), { name: 'lone' }];
    for (const project of projects)
      lanes.add(project, commitOf(0, { subject: project.name === 'lone' ? 'lone' : 'many' }), 0);
    const batch = lanes.take() as LaneBatch<Project, Commit>;
    lanes.end(
      batch,
      batch.members.map(({ commits }) => ({ left: commits, next: 'suspect' })),
      0,
    );
    const order: string[] = [];
    for (let n = 0; n < 3; n++) {
      const alone = lanes.take() as LaneBatch<Project, Commit>;
      order.push(...(namesOf(alone) ?? []));
      lanes.end(alone, [DONE], 0);
    }
    expect(order).toContain('lone');
    expect(order.indexOf('lone')).toBeLessThanOrEqual(1);
  });

  it('put a project that had no space before all others, including new ones', () => {
    const [filling, waiting, next] = projectsOf(3) as [Project, Project, Project];
    const lanes = lanesOf([filling, waiting]);
    const batch = lanes.take() as LaneBatch<Project, Commit>;
    lanes.add(next, commitOf(), 0);
    const [first, second] = batch.members as [LaneMember<Project, Commit>, LaneMember<Project, Commit>];
    lanes.end(
      batch,
      [
        { left: first.commits, next: 'any' },
        { left: second.commits, next: 'first' },
      ],
      0,
    );
    expect(namesOf(lanes.take())).toEqual(['p1', 'p2', 'p0']);
  });

  it('keep large commits out of the transactions of small ones', () => {
    const [large, small] = projectsOf(2) as [Project, Project];
    const lanes = lanesOf([]);
    lanes.add(large, commitOf(0, { bytes: 4 * MIB }), 0);
    lanes.add(small, commitOf(), 0);
    const [first, second] = [lanes.take(), lanes.take()];
    expect([first?.kind, namesOf(first)]).toEqual(['small', ['p1']]);
    expect([second?.kind, namesOf(second)]).toEqual(['large', ['p0']]);
  });

  it('end a project’s part of a small transaction before its first large commit', () => {
    const [project] = projectsOf(1) as [Project];
    const lanes = lanesOf([]);
    for (const bytes of [1_000, 4 * MIB, 1_000]) lanes.add(project, commitOf(0, { bytes }), 0);
    const first = lanes.take() as LaneBatch<Project, Commit>;
    expect(first.members[0]?.commits).toHaveLength(1);
    lanes.end(first, [DONE], 0);
    const second = lanes.take();
    expect([second?.kind, second?.members[0]?.commits.length]).toEqual(['large', 2]);
  });

  it('run a commit that is larger than any transaction alone', () => {
    const lanes = lanesOf(projectsOf(2), (n) => commitOf(n, { bytes: 40 * MIB }));
    expect(namesOf(lanes.take())).toEqual(['p0']);
    expect(namesOf(lanes.take())).toEqual(['p1']);
  });

  it('limit the running transactions of each lane, without waits for another lane', () => {
    const lanes = new CommitLanes<Project, Commit>(SLOTS);
    const projects = projectsOf(10);
    for (const project of projects.slice(0, 5)) lanes.add(project, commitOf(0, { bytes: 8 * MIB }), 0);
    expect([lanes.take(), lanes.take()].map((batch) => batch?.kind)).toEqual(['large', 'large']);
    expect(lanes.take()).toBeUndefined();
    lanes.add(projects[9] as Project, commitOf(), 0);
    expect(lanes.take()?.kind).toBe('small');
  });

  it('run a project with a contended head alone once, and for a second after a repetition', () => {
    const [project, other] = projectsOf(2) as [Project, Project];
    const lanes = lanesOf([project, other]);
    const contend = (nowMs: number) => {
      const batch = lanes.take() as LaneBatch<Project, Commit>;
      lanes.end(
        batch,
        batch.members.map((member) =>
          member.project === project ? { left: member.commits, next: 'contended' } : DONE,
        ),
        nowMs,
      );
      const alone = lanes.take() as LaneBatch<Project, Commit>;
      expect([alone.kind, namesOf(alone)]).toEqual(['alone', ['p0']]);
      lanes.end(alone, [DONE], nowMs);
    };
    const kindAt = (nowMs: number) => {
      lanes.add(project, commitOf(), nowMs);
      return lanes.take() as LaneBatch<Project, Commit>;
    };
    contend(0);
    lanes.add(project, commitOf(), 500);
    contend(500);
    const alone = kindAt(1_499);
    expect(alone.kind).toBe('alone');
    lanes.end(alone, [DONE], 1_499);
    expect(kindAt(1_500).kind).toBe('small');
  });

  it('run a project that failed alone separately for a minute', () => {
    const [project] = projectsOf(1) as [Project];
    const lanes = lanesOf([project]);
    const first = lanes.take() as LaneBatch<Project, Commit>;
    lanes.end(first, [{ left: first.members[0]?.commits ?? [], next: 'suspect' }], 0);
    const alone = lanes.take() as LaneBatch<Project, Commit>;
    expect(alone.kind).toBe('alone');
    lanes.end(alone, [{ left: [], next: 'failed' }], 0);
    for (const [nowMs, kind] of [
      [FAILED_ALONE_MS - 1, 'alone'],
      [FAILED_ALONE_MS, 'small'],
    ] as const) {
      lanes.add(project, commitOf(), nowMs);
      const batch = lanes.take() as LaneBatch<Project, Commit>;
      expect(batch.kind).toBe(kind);
      lanes.end(batch, [DONE], nowMs);
    }
  });

  it('give up commits that have waited too long for their turn, and no others', () => {
    const [old, young, running] = projectsOf(3) as [Project, Project, Project];
    const lanes = lanesOf([running]);
    lanes.take();
    lanes.add(running, commitOf(1), 0);
    lanes.add(old, commitOf(2), 0);
    lanes.add(young, commitOf(3, { queuedMs: 1 }), 1);
    expect(lanes.expired(QUEUED_MS_MAX).map(({ project }) => project.name)).toEqual(['p0']);
    expect(namesOf(lanes.take())).toEqual(['p1']);
    expect(lanes.waiting).toBe(0);
  });

  it('put the rest of a project into the lane of its first commit, and run no transaction without commits', () => {
    const [project] = projectsOf(1) as [Project];
    const lanes = new CommitLanes<Project, Commit>(SLOTS);
    lanes.add(project, commitOf(1), 0);
    lanes.add(project, commitOf(2, { bytes: 9 * MIB, queuedMs: 1 }), 1);
    lanes.expired(QUEUED_MS_MAX);
    const batch = lanes.take() as LaneBatch<Project, Commit>;
    expect([batch.kind, batch.members.map(({ commits }) => commits.length)]).toEqual(['large', [1]]);
    expect(lanes.take()).toBeUndefined();
  });

  it('leave connections to reads if there are few', () => {
    expect(laneSlots(5)).toEqual({ small: 2, large: 1, alone: 1 });
    expect(laneSlots(16)).toEqual({ small: 2, large: 2, alone: 4 });
  });

  it('lose no commit, take none twice, keep the order of each project, and run it in one transaction at a time', () => {
    const action = fc.oneof(
      fc.record({
        kind: fc.constant('add' as const),
        project: fc.nat(5),
        bytes: fc.constantFrom(10, 200_000, 9 * MIB),
        writes: fc.constantFrom(1, 100, 600),
      }),
      fc.record({ kind: fc.constant('take' as const) }),
      fc.record({
        kind: fc.constant('end' as const),
        which: fc.nat(7),
        left: fc.nat(3),
        next: fc.constantFrom('any' as const, 'contended' as const, 'suspect' as const, 'failed' as const),
      }),
      fc.record({ kind: fc.constant('wait' as const), ms: fc.constantFrom(1, 999, 60_000) }),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
        const projects = projectsOf(6);
        const lanes = new CommitLanes<Project, Commit>(SLOTS);
        const running: LaneBatch<Project, Commit>[] = [];
        const [added, decided] = [new Map<Project, number>(), new Map<Project, number>()];
        let nowMs = 0;
        const take = () => {
          const batch = lanes.take();
          if (batch === undefined) return false;
          const busy = running.flatMap(({ members }) => members.map(({ project }) => project));
          for (const { project, commits } of batch.members) {
            expect(busy).not.toContain(project);
            const from = decided.get(project) ?? 0;
            expect(commits.map(({ n }) => n)).toEqual(commits.map((_, at) => from + at));
            expect(commits.length).toBeGreaterThan(0);
          }
          running.push(batch);
          return true;
        };
        const end = (which: number, left: number, next: Leaving<Commit>['next']) => {
          const [batch] = running.splice(which % running.length, 1);
          if (batch === undefined) return;
          const leaving = batch.members.map(({ project, commits }) => {
            const kept = next === 'any' ? commits.slice(Math.max(1, commits.length - left)) : commits;
            if (next === 'failed') return { left: [], next, done: commits.length, project };
            return { left: kept, next, done: commits.length - kept.length, project };
          });
          for (const { project, done } of leaving) decided.set(project, (decided.get(project) ?? 0) + done);
          lanes.end(batch, leaving, nowMs);
        };
        for (const one of actions) {
          if (one.kind === 'take') take();
          else if (one.kind === 'wait') nowMs += one.ms;
          else if (one.kind === 'end') end(one.which, one.left, one.next);
          else {
            const project = projects[one.project] as Project;
            const n = added.get(project) ?? 0;
            added.set(project, n + 1);
            lanes.add(project, commitOf(n, one), nowMs);
          }
        }
        while (running.length > 0 || take()) {
          while (take());
          end(0, 0, 'any');
        }
        expect(lanes.waiting).toBe(0);
        expect(new Map(decided)).toEqual(new Map(added.entries().map(([project, n]) => [project, n])));
      }),
    );
  });
});
