import type { Document, DocumentPage } from '@bundoc/client/document';
import { memberTexts } from '@bundoc/client/json-slices';
import { useState } from 'preact/hooks';
import { useLocation } from 'preact-iso';
import { Empty, Fault, Field, Head, Loading, Name, Table } from '../parts/basics.tsx';
import { count, time, visible } from '../parts/format.ts';
import { useRequest } from '../parts/use-request.ts';
import { bundoc } from '../shell/api.ts';
import { may } from '../shell/session.ts';
import { ownText } from './document-text.ts';
import { places } from './places.ts';
import { CollectionFrame } from './project-frame.tsx';

const PAGE = 50;

/** Documents of a collection, page by page, with the fields that are chosen. */
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
  const { query, path, route } = useLocation();
  const chosen = fieldsOf(query['fields'] ?? '');
  const [typed, setTyped] = useState(chosen.join(', '));
  const [cursors, setCursors] = useState<readonly (string | undefined)[]>([undefined]);
  const cursor = cursors.at(-1);
  const page = useRequest(`${project}/${collection}?${chosen.join()}&${cursor}`, (signal) =>
    bundoc
      .project(project)
      .collection(collection)
      .listPage({
        limit: PAGE,
        cursor,
        total: true,
        fields: chosen.length === 0 ? undefined : chosen,
        signal,
      }),
  );
  const choose = () => {
    const fields = fieldsOf(typed);
    setCursors([undefined]);
    route(fields.length === 0 ? path : `${path}?fields=${encodeURIComponent(fields.join(','))}`);
  };
  return (
    <>
      <Head
        title={<Name text={collection} />}
        lead={
          page.data?.total === undefined
            ? undefined
            : `${count(page.data.total)} documents, in the order of creation`
        }
        actions={
          may('docs:write') ? (
            <a class="button primary" href={places.create(project, collection)}>
              New document
            </a>
          ) : null
        }
      />
      <form
        class="toolbar"
        onSubmit={(event) => {
          event.preventDefault();
          choose();
        }}
      >
        <Field label="Show only these fields" hint="Paths separated by commas, such as title, author.name">
          {(attributes) => (
            <input
              {...attributes}
              class="mono"
              autocomplete="off"
              spellcheck={false}
              value={typed}
              onInput={(event) => setTyped(event.currentTarget.value)}
            />
          )}
        </Field>
        <button type="submit">Show</button>
      </form>
      <Fault error={page.error} retry={page.reload} />
      {page.data === undefined ? (
        page.error === undefined ? (
          <Loading what="documents" />
        ) : null
      ) : (
        <Page project={project} collection={collection} page={page.data} fields={chosen} />
      )}
      <div class="pager">
        <button
          type="button"
          disabled={cursors.length === 1}
          onClick={() => setCursors(cursors.slice(0, -1))}
        >
          Previous
        </button>
        <button
          type="button"
          disabled={page.data?.nextCursor === undefined}
          onClick={() => setCursors([...cursors, page.data?.nextCursor])}
        >
          Next
        </button>
        <button type="button" class="quiet" onClick={page.reload}>
          Reload
        </button>
      </div>
    </>
  );
}

function fieldsOf(text: string): readonly string[] {
  return text
    .split(',')
    .map((field) => field.trim())
    .filter((field) => field !== '');
}

type AnyDocument = Document<Record<string, unknown>>;

function Page({
  project,
  collection,
  page,
  fields,
}: {
  readonly project: string;
  readonly collection: string;
  readonly page: DocumentPage<Record<string, unknown>>;
  readonly fields: readonly string[];
}) {
  if (page.documents.length === 0 && page.unreadable.length === 0)
    return (
      <Empty title="There is no document here">{may('docs:write') ? 'Write the first one.' : null}</Empty>
    );
  return (
    <>
      {page.unreadable.length === 0 ? null : (
        <p class="fault" role="alert">
          The stored bytes of these do not open: {page.unreadable.map((id) => visible(id)).join(', ')}
        </p>
      )}
      <DocumentTable project={project} collection={collection} documents={page.documents} fields={fields} />
    </>
  );
}

/** Documents as rows: with the values of fields, or with how their texts begin. */
export function DocumentTable({
  project,
  collection,
  documents,
  fields,
}: {
  readonly project: string;
  readonly collection: string;
  readonly documents: readonly AnyDocument[];
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
      {documents.map((document) => (
        <tr key={document.id}>
          <th scope="row">
            <a href={places.document(project, collection, document.id)}>
              <Name text={document.id} max={48} />
            </a>
          </th>
          {fields.length === 0 ? (
            <td class="preview">
              <bdi class="mono">{visible(ownText(document.text).text, 160)}</bdi>
            </td>
          ) : (
            fields.map((field) => (
              <td key={field}>
                <bdi class="mono">{visible(textAt(document.text, field.split('.')), 80)}</bdi>
              </td>
            ))
          )}
          <td class="when">{time(document.value._updated)}</td>
        </tr>
      ))}
    </Table>
  );
}

/** The text of the value at a path, as it was written; empty where there is none. */
function textAt(text: string, [name = '', ...rest]: readonly string[]): string {
  if (!text.trimStart().startsWith('{')) return '';
  const value = memberTexts(text).get(name) ?? '';
  return rest.length === 0 ? value : textAt(value, rest);
}
