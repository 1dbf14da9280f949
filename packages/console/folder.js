import { join } from 'node:path';

/** Where the build leaves the files of the console, and manifest.json, which names them. */
export const CONSOLE_FOLDER = join(import.meta.dirname, 'dist');

/** The style sheets and icons that the console shares with the API reference at /docs. */
export const STYLES_FOLDER = join(import.meta.dirname, 'src', 'styles');
