import { type AddCommands, type ProgramSpec, runProgram } from '@bundoc/shared/cli/command';
import type { Environment } from '@bundoc/shared/process/config';
import { KNOWN_VARIABLES } from '../known-variables.ts';
import { addAcceptLossCommand } from './accept-loss.ts';
import { addAggregateCommand } from './aggregate.ts';
import { addArchiveCommands } from './archive.ts';
import { addBackupCommands } from './backup.ts';
import { addExportCommand } from './bulk-export.ts';
import { addImportCommand } from './bulk-import.ts';
import { addCarryCommand } from './carry.ts';
import { addChangesCommand } from './changes.ts';
import { addDoctorCommand } from './doctor.ts';
import { addDocumentCommands } from './documents.ts';
import { remedyOf } from './errors.ts';
import { addListCommands } from './lists.ts';
import { addTokenCommands } from './login.ts';
import { addMoveCommand } from './move.ts';
import { addQueryCommand } from './query.ts';
import { addRepairCommand } from './repair.ts';
import { addStatsCommand } from './stats.ts';
import { addVerifyCommand } from './verify.ts';
import { addWaitCommand } from './wait.ts';
import { addWhereCommands } from './where.ts';

const COMMANDS: readonly AddCommands[] = [
  addTokenCommands,
  addDocumentCommands,
  addQueryCommand,
  addAggregateCommand,
  addWhereCommands,
  addChangesCommand,
  addListCommands,
  addImportCommand,
  addExportCommand,
  addMoveCommand,
  addVerifyCommand,
  addStatsCommand,
  addRepairCommand,
  addCarryCommand,
  addAcceptLossCommand,
  addBackupCommands,
  addArchiveCommands,
  addDoctorCommand,
  addWaitCommand,
];

export const PROGRAM: ProgramSpec = {
  name: 'bundoc',
  description:
    'Maintains the data folder while the service is stopped, with the same BUNDOC_ variables; or works through the running service.',
  variables: KNOWN_VARIABLES,
  commands: COMMANDS,
  exitCodeOf: () => 2,
  remedyOf,
};

/**
 * Runs `bundoc` with these arguments.
 *
 * @returns the exit code: 0 for success, 1 when the command found a fault, 2 when it could not run.
 */
export function runBundoc(args: readonly string[], environment: Environment): Promise<number> {
  return runProgram(PROGRAM, args, environment);
}
