import { join } from 'node:path';
import type { ProjectContents } from '../project-contents.ts';
import { documentPath } from './document-files.ts';
import { readJournalFolder, surveyJournal } from './journal-folder.ts';
import { loadSnapshot, type StorePlace } from './project-loader.ts';
import { JournalCorrupt } from './segment-reader.ts';

/**
 * What a project's folder holds: catalog and journal, documents from the journal or else from their files. Nobody may write to it meanwhile.
 *
 * @throws CatalogDamaged, JournalCorrupt; AppError of the disk.
 */
export async function contentsOfFolder(place: StorePlace): Promise<ProjectContents> {
  const { disk, directory, cipher } = place;
  const { store, head } = await loadSnapshot(place);
  const folder = await readJournalFolder(disk, join(directory, 'journal'), cipher);
  const { faults } = surveyJournal(folder, head.start, (frame) => store.replay(frame));
  if (faults[0] !== undefined) throw new JournalCorrupt(faults[0]);
  const { catalog, usedKeys, sealCounts, sealedByFile } = store;
  return {
    lastSeq: catalog.lastSeq,
    purgedSeq: catalog.purgedSeq,
    seals: sealCounts,
    usedKeys: [...usedKeys],
    size: catalog.size,
    async *entries() {
      for (const state of catalog.states()) {
        const name = state.fileName.toString('hex');
        const isAlive = state.deletedMs === 0;
        const sealed = isAlive
          ? (sealedByFile.get(name) ?? (await disk.read(join(directory, documentPath(name)))))
          : undefined;
        if (isAlive && sealed === undefined) throw new JournalCorrupt(`the document file ${name} is missing`);
        yield { state, sealed };
      }
    },
  };
}
