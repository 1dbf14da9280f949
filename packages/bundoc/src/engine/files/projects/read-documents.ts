import { openOwnDocument } from '../../open-document.ts';
import { documentPath, getFileName, readDocumentFile } from '../documents/document-files.ts';
import { loadProject } from '../store/project-loader.ts';
import { type ProjectPlace, readProject } from './project-reader.ts';

/** A document, or why it is not readable. */
type ReadDocument = { readonly text: Buffer } | { readonly unreadable: string };

/**
 * The documents of a project in the order of their last changes. Read only: the project need not be open.
 *
 * @throws AppError of the key service; CatalogDamaged; PartsDamaged; ProjectFilesUnreadable.
 */
export async function* readDocuments(project: ProjectPlace): AsyncGenerator<ReadDocument> {
  const { place } = await readProject(project);
  const { disk, directory, cipher } = place;
  const { catalog, sealedByFile } = (await loadProject(place)).store;
  const living = [...catalog.states()].filter(({ deletedMs }) => deletedMs === 0);
  for (const state of living.sort((a, b) => a.seq - b.seq)) {
    const fileName = getFileName(state);
    // The log has what is newer than the file.
    const sealed =
      sealedByFile.get(fileName) ?? (await readDocumentFile(disk, directory, documentPath(fileName)));
    const opened =
      sealed === undefined || sealed === 'unsafe' ? undefined : openOwnDocument(cipher, fileName, sealed);
    const isRight =
      opened !== undefined && 'text' in opened && opened.metadata._rev === state.rev.toString('hex');
    yield isRight ? { text: opened.text } : { unreadable: `${state.collection}/${state.id}` };
  }
}
