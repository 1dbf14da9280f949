declare module '*.svg' {
  const url: string;
  export default url;
}
declare module '*.css';

interface FileSystemFileHandle {
  /** Not in every browser. */
  readonly remove?: () => Promise<void>;
}

/** Not in every browser (https://wicg.github.io/file-system-access/). */
declare var showSaveFilePicker:
  | ((options: { readonly suggestedName: string }) => Promise<FileSystemFileHandle>)
  | undefined;
