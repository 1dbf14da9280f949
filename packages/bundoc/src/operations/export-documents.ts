import type { Bundoc } from '@bundoc/client';

export interface ExportOptions {
  readonly project: string;
  /** All when undefined. */
  readonly collection: string | undefined;
  /** The end of an earlier export; undefined for the start. */
  readonly since: string | undefined;
  /** The progress of an interrupted run, which this one continues. */
  readonly done?: ExportProgress | undefined;
  /** Whether to include deletions. */
  readonly deletions: boolean;
  readonly signal: AbortSignal;
  /** Takes the lines of a page. Awaited before the next page is requested. */
  readonly write: (lines: string, progress: ExportProgress) => Promise<void>;
}

export interface ExportProgress {
  /** The cursor to resume from. */
  readonly since: string;
  readonly documents: number;
  readonly deletions: number;
  /** Undecryptable documents. */
  readonly unreadable: readonly string[];
}

const PAGE = 1_000;

/**
 * Writes a project's documents as lines, each as stored, in the order of their last changes: it reads the
 * feed of changes to its end. Applied in order, the lines yield the project's state at the end. A document
 * that changes during the export appears again, and the later line wins. Only one page is in memory.
 */
export async function exportDocuments(bundoc: Bundoc, options: ExportOptions): Promise<ExportProgress> {
  const { collection, signal, write } = options;
  const project = bundoc.project(options.project);
  const { done, since: start } = options;
  let progress = done ?? { since: start ?? '', documents: 0, deletions: 0, unreadable: [] };
  for (let since = done?.since ?? start; ; since = progress.since) {
    const page = await project.changesPage({ since, collection, documents: true, pageSize: PAGE, signal });
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
