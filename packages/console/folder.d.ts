/** The folder with the built files of the console, and manifest.json, which lists them. */
export declare const CONSOLE_FOLDER: string;
/** The style sheets and icons that the console shares with the API reference at /docs. */
export declare const STYLES_FOLDER: string;
