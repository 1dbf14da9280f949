import type { MoveProgress } from '@bundoc/client';
import type { AddCommands } from '@bundoc/shared/cli/command';
import { print } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { onProject, openProject, stopSignal } from './service-client.ts';
import { DOCUMENTS_FORMAT } from './transfer-bar.ts';

/**
 * `bundoc move`: moves a project through the running service to the storage that it is configured to move to.
 * A repeated command resumes an interrupted move.
 */
export const addMoveCommand: AddCommands = (program, environment) => {
  onProject(
    program,
    'move',
    'moves a project from files to PostgreSQL, sealed as it is and while it is used: through the running service on files, to where its BUNDOC_MOVE_TO says',
  ).action(async (id, options) => {
    const project = await openProject(environment, options, id);
    const bar = createProgress(DOCUMENTS_FORMAT);
    const onProgress = ({ step, documents, of }: MoveProgress) => {
      if (step !== 'switching') bar.show(documents, of, step);
    };
    const move = project.move({ signal: stopSignal(), onProgress });
    const { to, kept } = await move.finally(bar[Symbol.dispose]);
    if (options.json) print(options, { moved: id, to, kept }, () => []);
    else
      console.error(
        `bundoc: ${id} is in ${to}; what was in its folder is kept in moved/${kept}: remove it once a backup of the project where it is now is checked ("bundoc backup", "bundoc verify-backup")`,
      );
  });
};
