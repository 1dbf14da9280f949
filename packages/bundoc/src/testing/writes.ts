import { readDocumentBody } from '../crypto/stored-text.ts';
import type { Precondition, ProjectStore, Write, WriteResult } from '../engine/port/port.ts';

export const ref = (id: string, collection = 'notes') => ({ collection, id });

export function put(id: string, json: string, precondition: Precondition = { kind: 'none' }): Write {
  return { kind: 'put', ref: ref(id), content: readDocumentBody(Buffer.from(json)).content, precondition };
}

export function remove(id: string, precondition: Precondition = { kind: 'none' }): Write {
  return { kind: 'delete', ref: ref(id), precondition };
}

/** Commits one write and gives its result. */
export async function commitOne(store: ProjectStore, write: Write): Promise<WriteResult> {
  const [result] = await store.commit([write]);
  if (result === undefined) throw new Error('a commit gave no result');
  return result;
}
