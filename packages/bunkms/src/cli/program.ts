import { type AddCommands, type ProgramSpec, runProgram } from '@bundoc/shared/cli/command';
import type { Environment } from '@bundoc/shared/process/config';
import { KNOWN_VARIABLES } from '../config.ts';
import { addArchiveCommands } from './archive.ts';
import { addAuditCommands } from './audit.ts';
import { addDoctorCommand } from './doctor.ts';
import { exitCodeOf, remedyOf } from './errors.ts';
import { addInitCommand } from './init.ts';
import { addKekCommands } from './kek.ts';
import { addKeyCommands } from './key.ts';
import { addOutsideCommands } from './outside.ts';
import { registerRecoveryCommands } from './recovery-commands.ts';
import { addSealCommands } from './seal.ts';
import { addStatusCommand } from './status.ts';
import { addStorageCommands } from './storage.ts';
import { addTokenCommands } from './token.ts';
import { addWaitCommand } from './wait.ts';

const COMMANDS: readonly AddCommands[] = [
  addInitCommand,
  addTokenCommands,
  addKeyCommands,
  addStorageCommands,
  addKekCommands,
  addOutsideCommands,
  addSealCommands,
  addAuditCommands,
  registerRecoveryCommands,
  addArchiveCommands,
  addStatusCommand,
  addDoctorCommand,
  addWaitCommand,
];

export const PROGRAM: ProgramSpec = {
  name: 'bunkms',
  description:
    'Administers the key service on its own machine; reads the same BUNKMS_ variables as the service.',
  variables: KNOWN_VARIABLES,
  commands: COMMANDS,
  exitCodeOf,
  remedyOf,
};

/** Runs `bunkms` with these arguments. @returns the exit code (docs/keys.md). */
export function runBunkms(args: readonly string[], environment: Environment): Promise<number> {
  return runProgram(PROGRAM, args, environment);
}
