import type { DocumentMetadata } from '@bundoc/shared/contract/documents';
import { OpenError } from '@bundoc/shared/crypto/aead';
import type { ProjectCipher } from '../crypto/project-cipher.ts';
import { readOwnMetadata } from '../crypto/stored-text.ts';

export type OpenedDocument =
  | { readonly metadata: DocumentMetadata; readonly text: Buffer }
  /** Why the bytes are not the document of their file. */
  | { readonly fault: string };

/**
 * Opens sealed bytes and identifies their document. They must be authentic, and the document's name must be
 * the file's.
 */
export function openOwnDocument(cipher: ProjectCipher, fileName: string, sealed: Buffer): OpenedDocument {
  let text: Buffer;
  try {
    text = cipher.openDocument(fileName, sealed);
  } catch (error) {
    if (error instanceof OpenError) return { fault: 'does not open' };
    throw error;
  }
  const metadata = readOwnMetadata(text);
  if (metadata === undefined) return { fault: 'holds no document' };
  const owner = cipher.fileName({ collection: metadata._collection, id: metadata._id });
  return owner === fileName ? { metadata, text } : { fault: 'holds the document of another file' };
}
