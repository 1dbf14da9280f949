/** The folder with the built files of the console, and manifest.json, which lists them. */
export declare const CONSOLE_FOLDER: string;
