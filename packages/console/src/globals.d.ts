declare module '*.svg' {
  const url: string;
  export default url;
}
declare module '*.css';

/** Not in every browser (https://wicg.github.io/file-system-access/). */
declare var showSaveFilePicker:
  | ((options: { readonly suggestedName: string }) => Promise<FileSystemFileHandle>)
  | undefined;
