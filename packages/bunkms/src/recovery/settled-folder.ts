import { join } from 'node:path';
import { LOG_FOLDER, type LogFolderReader, settledState } from '@bundoc/shared/contract/log-folder';
import { codeOf, type DataFolder } from '@bundoc/shared/files/data-folder';
import { listSync, readStartSync } from '@bundoc/shared/files/small-files';

/** Projects may be only in Bundoc's log, where only Bundoc finds them. */
export class DataFolderUnsettled extends Error {
  override readonly name = 'DataFolderUnsettled';
}

/** @throws DataFolderUnsettled unless every project of the data folder certainly has its folder. */
export function requireSettled(folder: DataFolder): void {
  const refusal = (cause?: unknown) =>
    new DataFolderUnsettled(
      `${folder.path} is not settled: its log may have projects without a folder yet; stop Bundoc, run \`bundoc settle\` on this data folder, and run this command again`,
      { cause },
    );
  let state: ReturnType<typeof settledState>;
  try {
    state = settledState(readerOf(folder));
  } catch (error) {
    throw refusal(error);
  }
  if (state === 'unsettled') throw refusal();
}

function readerOf(folder: DataFolder): LogFolderReader {
  return {
    list: () => {
      try {
        return listSync(folder, LOG_FOLDER);
      } catch (error) {
        if (codeOf(error) === 'ENOENT') return undefined;
        throw error;
      }
    },
    readStart: (name, bytes) => readStartSync(folder, join(LOG_FOLDER, name), bytes),
  };
}
