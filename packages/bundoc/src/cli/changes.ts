import type { Change } from '@bundoc/client/changes';
import { withoutMetadata } from '@bundoc/client/document';
import { type AddCommands, wholeNumber } from '@bundoc/shared/cli/command';
import { onOneLine, rowWriter } from './output.ts';
import { collectionName, onProject, openProject, stopSignal } from './service-client.ts';

type Row = Change<Record<string, unknown>>;

/** `bundoc changes`: prints each changed document once, at its last change. */
export const addChangesCommand: AddCommands = (program, environment) => {
  onProject(program, 'changes', 'prints what has changed, each document once, at its last change')
    .option('--collection <name>', 'of one collection', collectionName)
    .option('--since <position>', 'changes after a position that an earlier run printed, or "now"')
    .option('--documents', 'each with its document')
    .option('--follow', 'follow changes until Ctrl-C')
    .option(
      '--limit <count>',
      'how many changes at most; all by default',
      wholeNumber(1, Number.MAX_SAFE_INTEGER),
    )
    .action(async (id, options) => {
      const { since, collection, documents = false, follow, limit = Number.POSITIVE_INFINITY } = options;
      const project = await openProject(environment, options, id);
      const signal = stopSignal();
      const columns = [
        { head: 'collection', cell: (row: Row) => row.collection },
        { head: 'id', cell: (row: Row) => row.id },
        { head: 'revision', cell: ({ rev }: Row) => rev },
        { head: documents ? 'document' : 'change', cell: documentCell },
      ];
      const print = rowWriter({ columns, json: jsonOf }, options);
      const until = follow ? 'stream' : 'end';
      const changes = project.changes({ since, collection, documents, until, signal });
      let count = 0;
      const rows: Row[] = [];
      try {
        for await (const change of changes) {
          rows.push(change);
          if (follow || rows.length === ROWS) await print(rows.splice(0));
          if (++count === limit) break;
        }
      } catch (error) {
        // Stopping a followed feed is not an error.
        if (!follow || !signal.aborted) throw error;
      }
      await print(rows);
      if (follow || count < limit)
        console.error(`bundoc: what comes behind these: --since ${changes.since ?? since ?? ''}`);
    });
};

/** Rows printed at a time. */
const ROWS = 1_000;

function documentCell({ deleted, document, isUnreadable }: Row): string {
  if (deleted) return 'deleted';
  if (isUnreadable) return 'does not open';
  return document === undefined ? 'written' : onOneLine(withoutMetadata(document.text));
}

function jsonOf({ collection, id, rev, deleted, document, isUnreadable }: Row): string {
  const members = [
    `"_collection":${JSON.stringify(collection)},"_id":${JSON.stringify(id)},"_rev":${JSON.stringify(rev)}`,
    ...(deleted ? ['"deleted":true'] : []),
    ...(isUnreadable ? ['"unreadable":true'] : []),
    ...(document === undefined ? [] : [`"doc":${onOneLine(document.text)}`]),
  ];
  return `{${members.join(',')}}`;
}
