/** Where the build leaves the files of the console, and manifest.json, which names them. */
export declare const CONSOLE_FOLDER: string;
