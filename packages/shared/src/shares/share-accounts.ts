import type { AppError } from '../contract/app-error.ts';
import type { Hold } from './hold.ts';
import type { ShareKey } from './share-key.ts';

/** What a subject holds of a share and what it waits for. */
export interface SubjectAccount {
  readonly id: string;
  held: number;
  heldOfReserve: number;
  waiting: number;
  /** Waiting units that are in memory already. */
  waitingUnits: number;
  /** Only those with holds or waiting requests. */
  readonly projects: Map<string, ProjectAccount>;
}

export interface ProjectAccount {
  readonly id: string;
  readonly subject: SubjectAccount;
  held: number;
  /** Number of holds and waiting requests. */
  users: number;
  /** Waiting requests in order of arrival. A large one does not delay small ones. */
  readonly small: Waiter[];
  readonly large: Waiter[];
}

/** A waiting request. */
export interface Waiter {
  readonly units: number;
  /** Those of the units that are in memory already. */
  readonly inMemory: number;
  readonly place: number;
  readonly sinceMs: number;
  readonly account: ProjectAccount;
  readonly grant: (hold: Hold) => void;
  readonly refuse: (error: AppError) => void;
}

/** The accounts of a share by subject and project. */
export class ShareAccounts {
  /** Only those with holds or waiting requests. */
  readonly subjects = new Map<string, SubjectAccount>();

  /** All waiting requests. */
  *waiters(): Generator<Waiter> {
    for (const { projects } of this.subjects.values())
      for (const { small, large } of projects.values()) {
        yield* small;
        yield* large;
      }
  }

  /** The account of a key. A new account is not stored until it is used. */
  of({ subject: id, project }: ShareKey): ProjectAccount {
    const subject = this.subjects.get(id) ?? {
      id,
      held: 0,
      heldOfReserve: 0,
      waiting: 0,
      waitingUnits: 0,
      projects: new Map(),
    };
    return subject.projects.get(project) ?? { id: project, subject, held: 0, users: 0, small: [], large: [] };
  }

  remember(account: ProjectAccount): void {
    if (account.users++ > 0) return;
    account.subject.projects.set(account.id, account);
    this.subjects.set(account.subject.id, account.subject);
  }

  forget(account: ProjectAccount): void {
    if (--account.users > 0) return;
    const { id, subject } = account;
    subject.projects.delete(id);
    if (subject.projects.size === 0) this.subjects.delete(subject.id);
  }
}

/** Whether a request is served before another: the one whose subject, or project, holds less comes first. */
export function isBefore(one: Waiter, other: Waiter): boolean {
  const [a, b] = [one.account, other.account];
  if (a.subject !== b.subject && a.subject.held !== b.subject.held) return a.subject.held < b.subject.held;
  if (a.subject === b.subject && a.held !== b.held) return a.held < b.held;
  return one.place < other.place;
}
