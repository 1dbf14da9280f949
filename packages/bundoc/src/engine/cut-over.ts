import { AppError } from '@bundoc/shared/contract/app-error';
import type { UsedProject, UsedProjects } from './transfer-port.ts';

/**
 * Gives a project away: runs `action` with it open while nobody writes to it, then takes it out of use and,
 * before anybody opens it again, runs `mark`. If any of it fails, the project is in use as before.
 *
 * @throws AppError `project_not_found`; `overloaded` when its users do not leave.
 */
export async function cutOver<P extends UsedProject>(
  instances: UsedProjects<P>,
  project: string,
  action: (lease: P) => Promise<void>,
  mark: () => Promise<void>,
): Promise<void> {
  using lease = await instances.acquire(project, 'existing');
  if (lease === undefined) throw new AppError('project_not_found');
  const { movable } = lease.store;
  if (movable === undefined) throw new Error('the storage does not support moves');
  // Held by the lease as well: without it a new instance, which knows of no fence, might be opened.
  using _fence = await movable.fence();
  await action(lease);
  await instances.exclusively(project, async (close) => {
    lease[Symbol.dispose]();
    await close();
    await mark();
  });
}
