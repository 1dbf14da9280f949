import { AppError } from '@bundoc/shared/contract/app-error';
import type { UsedProject, UsedProjects } from './transfer-port.ts';

/**
 * Hands a project over. It runs `action` with the project open and its writers blocked, then closes the
 * project and runs `mark` before anyone can open it again. If any step fails, the project stays in use.
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
  // The lease must last as long as the fence: otherwise a new instance without the fence could open.
  using _fence = await movable.fence();
  await action(lease);
  await instances.exclusively(project, async (close) => {
    lease[Symbol.dispose]();
    await close();
    await mark();
  });
}
