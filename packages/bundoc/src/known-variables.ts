import type { KnownVariables } from '@bundoc/shared/process/config';
import { VARIABLES } from './config.ts';

/** Variables of the client commands, which may share the service's environment. */
const OF_COMMANDS = ['BUNDOC_URL', 'BUNDOC_TOKEN', 'BUNDOC_TOKEN_FILE', 'BUNDOC_PROFILE', 'BUNDOC_CA_FILE'];

export const KNOWN_VARIABLES: KnownVariables = { prefix: 'BUNDOC_', names: [...VARIABLES, ...OF_COMMANDS] };
