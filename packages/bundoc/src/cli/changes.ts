import type { Change } from '@bundoc/client/changes';
import { withoutMetadata } from '@bundoc/client/document';
import type { Environment } from '@bundoc/shared/runtime/config';
import type { DataOptions } from './documents.ts';
import { parseOptionalCollection, parseProjectId } from './names.ts';
import { onOneLine, rowWriter } from './output.ts';
import { serviceClient, stopSignal } from './service-client.ts';

export interface ChangesCommandOptions extends DataOptions {
  readonly collection?: string;
  readonly since?: string;
  readonly documents?: true;
  readonly follow?: true;
  readonly limit?: number;
}

type Row = Change<Record<string, unknown>>;

/**
 * Prints each changed document once, at its last change. With `follow`, it prints further changes until it is
 * stopped.
 */
export async function changesCommand(
  environment: Environment,
  named: string,
  options: ChangesCommandOptions,
): Promise<void> {
  const { since, documents, follow, limit = Number.POSITIVE_INFINITY } = options;
  const project = (await serviceClient(environment, options)).project(parseProjectId(named));
  const signal = stopSignal();
  const print = rowWriter<Row>(
    {
      columns: [
        { head: 'collection', cell: ({ collection }) => collection },
        { head: 'id', cell: ({ id }) => id },
        { head: 'revision', cell: ({ rev }) => rev },
        { head: documents ? 'document' : 'change', cell: documentCell },
      ],
      json: jsonOf,
    },
    options,
  );
  const changes = project.changes({
    since,
    collection: parseOptionalCollection(options.collection),
    documents: documents === true,
    until: follow ? 'stream' : 'end',
    signal,
  });
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
}

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
