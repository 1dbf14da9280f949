import { onSignOut } from '../shell/session.ts';

/**
 * Unsaved text by the path of its document. It is in memory only: it survives a change of view, but not a
 * reload.
 */
const drafts = new Map<string, { readonly text: string; readonly rev: string | undefined }>();

export const draftOf = (place: string) => drafts.get(place);
export const dropDraft = (place: string) => drafts.delete(place);
onSignOut(() => drafts.clear());

export function keepDraft(place: string, text: string, rev: string | undefined): void {
  drafts.set(place, { text, rev });
}

addEventListener('beforeunload', (event) => {
  if (drafts.size > 0) event.preventDefault();
});
