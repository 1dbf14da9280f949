import type { Bundoc } from '@bundoc/client';

export interface ExportOptions {
  readonly project: string;
  /** All when undefined. */
  readonly collection: string | undefined;
  /** Where an earlier export ended; from the start when undefined. */
  readonly since: string | undefined;
  /** Whether deletions are written as well. */
  readonly deletions: boolean;
  readonly signal: AbortSignal;
  /** Takes the lines of a page. Awaited before the next page is asked for. */
  readonly write: (lines: string, progress: ExportProgress) => Promise<void>;
}

export interface ExportProgress {
  /** Where to go on. */
  readonly since: string;
  readonly documents: number;
  readonly deletions: number;
  /** Documents whose stored bytes do not open. */
  readonly unreadable: readonly string[];
}

const PAGE = 1_000;

/**
 * Writes a project's documents as lines, each as it is stored, in the order of their last changes: the feed
 * of changes up to its end. So the lines, taken in their order, are the project as it was at the end: a
 * document that changes meanwhile comes again behind, and the later line counts. One page is in memory.
 */
export async function exportDocuments(bundoc: Bundoc, options: ExportOptions): Promise<ExportProgress> {
  const { collection, signal, write } = options;
  const project = bundoc.project(options.project);
  let progress: ExportProgress = { since: options.since ?? '', documents: 0, deletions: 0, unreadable: [] };
  for (let since = options.since; ; since = progress.since) {
    const page = await project.changesPage({ since, collection, documents: true, limit: PAGE, signal });
    const lines: string[] = [];
    let { documents, deletions } = progress;
    const unreadable = [...progress.unreadable];
    for (const change of page.changes) {
      if (change.document !== undefined) {
        lines.push(change.document.text, '\n');
        documents++;
      } else if (change.isUnreadable) unreadable.push(`${change.collection}/${change.id}`);
      else if (options.deletions) {
        lines.push(`${JSON.stringify({ _id: change.id, _collection: change.collection, _deleted: true })}\n`);
        deletions++;
      }
    }
    progress = { since: page.since, documents, deletions, unreadable };
    await write(lines.join(''), progress);
    if (!page.more) return progress;
  }
}
