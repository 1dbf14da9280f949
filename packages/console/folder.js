import { join } from 'node:path';

/** Where the build leaves the files of the console, and manifest.json, which names them. */
export const CONSOLE_FOLDER = join(import.meta.dirname, 'dist');
