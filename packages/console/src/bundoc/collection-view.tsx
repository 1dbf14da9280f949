import { memberTexts } from '@bundoc/client/document';
import { useState } from 'preact/hooks';
import { useLocation } from 'preact-iso';
import { Empty, Head, Loaded, Name, Table } from '../parts/basics.tsx';
import {
  asOfIn,
  EXPORT_PAGE,
  ExportDialog,
  nextOf,
  PAGE_DEADLINE_MS,
  unreadableOf,
} from '../parts/export-dialog.tsx';
import { TextField } from '../parts/fields.tsx';
import { plural, time, visible } from '../parts/format.ts';
import { type SplitAnswer, splitInTurns } from '../parts/json-elements.ts';
import { Pager, usePages } from '../parts/pages.tsx';
import { useRequest } from '../parts/use-request.ts';
import { api, path } from '../shell/api.ts';
import { may } from '../shell/session.ts';
import { ownText } from './document-text.ts';
import { places } from './places.ts';
import { CollectionFrame } from './project-frame.tsx';

const PAGE = 50;
/** Characters of a document for a list: its metadata and its beginning. */
export const HEAD_CHARS = 16_384;

/** The documents of a collection in pages, with the selected fields. */
export function CollectionView({
  project = '',
  collection = '',
}: {
  readonly project?: string;
  readonly collection?: string;
}) {
  return (
    <CollectionFrame project={project} collection={collection} here="Documents">
      {() => <Documents key={`${project}/${collection}`} project={project} collection={collection} />}
    </CollectionFrame>
  );
}

function Documents({ project, collection }: { readonly project: string; readonly collection: string }) {
  const { query, path: here, route } = useLocation();
  const chosen = fieldsOf(query['fields'] ?? '');
  const [typed, setTyped] = useState(chosen.join(', '));
  const [isExporting, setIsExporting] = useState(false);
  const pages = usePages();
  const { cursor } = pages;
  const fields = chosen.length === 0 ? undefined : chosen.join(',');
  const page = useRequest(`${project}/${collection}?${fields}&${cursor}`, (signal) =>
    listPage(project, collection, { limit: PAGE, cursor, fields, include: 'total' }, signal),
  );
  const choose = () => {
    const next = fieldsOf(typed);
    pages.reset();
    route(next.length === 0 ? here : `${here}?fields=${encodeURIComponent(next.join(','))}`);
  };
  const total = page.data?.rest['total'];
  const asOf = asOfIn(page.data?.rest);
  return (
    <>
      <Head
        title={<Name text={collection} />}
        lead={
          typeof total === 'number'
            ? `${plural(total, 'document')}, in order of creation${asOf === undefined ? '' : `, as of position ${asOf}`}`
            : undefined
        }
        actions={
          <>
            <button type="button" onClick={() => setIsExporting(true)}>
              Export
            </button>
            {may('docs:write') ? (
              <a class="button primary" href={places.create(project, collection)}>
                New document
              </a>
            ) : null}
          </>
        }
      />
      <form
        class="toolbar"
        onSubmit={(event) => {
          event.preventDefault();
          choose();
        }}
      >
        <TextField
          label="Show only these fields"
          hint="Paths separated by commas, such as title, author.name"
          value={typed}
          onInput={setTyped}
        />
        <button type="submit">Show</button>
      </form>
      <Loaded request={page} what="documents">
        {(data) => <Page project={project} collection={collection} page={data} fields={chosen} />}
      </Loaded>
      <Pager pages={pages} next={nextOf(page.data?.rest)} onReload={page.reload} />
      {isExporting ? (
        <ExportDialog
          name={`${project}-${collection}`}
          what={
            <>
              All documents of <Name text={collection} />, in the order of creation
            </>
          }
          noun="document"
          total={typeof total === 'number' ? total : undefined}
          ask={(from, signal) =>
            listPage(project, collection, { limit: EXPORT_PAGE, cursor: from, fields }, signal, Infinity)
          }
          onClose={() => setIsExporting(false)}
        />
      ) : null}
    </>
  );
}

/** A page of the collection. @param charsMax maximum characters of each document. */
async function listPage(
  project: string,
  collection: string,
  query: Readonly<Record<string, string | number | undefined>>,
  signal: AbortSignal,
  charsMax = HEAD_CHARS,
): Promise<SplitAnswer> {
  const { text } = await api.send({
    method: 'GET',
    path: path('projects', project, 'collections', collection, 'documents'),
    query,
    deadlineMs: PAGE_DEADLINE_MS,
    isIdempotent: true,
    signal,
  });
  return splitInTurns(text, charsMax, signal);
}

function fieldsOf(text: string): readonly string[] {
  return text
    .split(',')
    .map((field) => field.trim())
    .filter((field) => field !== '');
}

function Page({
  project,
  collection,
  page: { elements, rest },
  fields,
}: {
  readonly project: string;
  readonly collection: string;
  readonly page: SplitAnswer;
  readonly fields: readonly string[];
}) {
  const unreadable = unreadableOf(rest);
  if (elements.length === 0 && unreadable.length === 0)
    return (
      <Empty title="No documents">
        {may('docs:write') ? 'Choose “New document”, or import a file.' : 'This token may not write one.'}
      </Empty>
    );
  return (
    <>
      {unreadable.length === 0 ? null : (
        <p class="fault" role="alert">
          The stored bytes of these do not open: {unreadable.map((id) => visible(id)).join(', ')}
        </p>
      )}
      <DocumentTable project={project} collection={collection} documents={elements} fields={fields} />
    </>
  );
}

/**
 * Documents as rows, with the values of fields or the beginning of their texts.
 *
 * @param documents their texts, which may be truncated.
 */
export function DocumentTable({
  project,
  collection,
  documents,
  fields,
}: {
  readonly project: string;
  readonly collection: string;
  readonly documents: readonly string[];
  readonly fields: readonly string[];
}) {
  return (
    <Table
      label="Documents"
      heads={[
        'Id',
        ...(fields.length === 0 ? ['Text'] : fields.map((field) => visible(field, 60))),
        'Changed (UTC)',
      ]}
    >
      {documents.map((document) => {
        const { text, metadata } = ownText(document);
        return (
          <tr key={metadata._id}>
            <th scope="row">
              <a href={places.document(project, collection, metadata._id)}>
                <Name text={metadata._id} max={48} />
              </a>
            </th>
            {fields.length === 0 ? (
              <td class="preview">
                <bdi class="mono">{visible(text, 160)}</bdi>
              </td>
            ) : (
              fields.map((field) => (
                <td key={field}>
                  <bdi class="mono">{visible(textAt(document, field.split('.')), 80)}</bdi>
                </td>
              ))
            )}
            <td class="when">{time(metadata._updated)}</td>
          </tr>
        );
      })}
    </Table>
  );
}

/** The exact text of the value at a path; empty when there is none. */
function textAt(text: string, [name = '', ...rest]: readonly string[]): string {
  if (text.length >= HEAD_CHARS) return '(too long for a list)';
  if (!text.trimStart().startsWith('{')) return '';
  const value = memberTexts(text).get(name) ?? '';
  return rest.length === 0 ? value : textAt(value, rest);
}
