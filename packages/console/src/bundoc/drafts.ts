import { onSignOut } from '../shell/session.ts';

/**
 * Text that was typed and not stored yet, by the path of its document. In memory: it survives a look at
 * another view, and no reload.
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
