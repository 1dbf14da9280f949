import type {
  SchemaCheck as Checked,
  CollectionDefinition,
  CollectionInfo,
  DefinedCollection,
} from '@bundoc/client/definition';
import { useState } from 'preact/hooks';
import { Editor } from '../editor/editor.tsx';
import { Badge, Empty, Fault, Figure, Head, Loading, Name, StopButton, Table } from '../parts/basics.tsx';
import { bytes, count, plural, visible } from '../parts/format.ts';
import { useAction } from '../parts/use-action.ts';
import { useRequest } from '../parts/use-request.ts';
import { bundoc } from '../shell/api.ts';
import { may } from '../shell/session.ts';
import { faultOfText } from './document-text.ts';
import { places } from './places.ts';
import { CollectionFrame } from './project-frame.tsx';
import { RemovalPanel } from './removal-panel.tsx';

const WORDS = [
  ['indexes', 'indexes for queries'],
  ['fields', 'paths of an index'],
  ['unique', 'no two documents have the same values'],
  ['schema', 'JSON Schema of the documents'],
  ['ttl', 'documents expire after a time in a field'],
  ['field', 'path to the time'],
  ['seconds', 'after that time'],
].map(([label = '', detail = '']) => ({ label: `"${label}"`, detail }));

/** The definition of a collection, and the state of its indexes. */
export function DefinitionView({
  project = '',
  collection = '',
}: {
  readonly project?: string;
  readonly collection?: string;
}) {
  // Each removal begins with what is left.
  const [removals, setRemovals] = useState<readonly string[]>([]);
  return (
    <CollectionFrame project={project} collection={collection} here="Definition">
      {() => (
        <Loaded
          key={`${project}/${collection}/${removals.length}`}
          project={project}
          collection={collection}
          removed={removals.at(-1)}
          onRemoved={(what) => setRemovals((before) => [...before, what])}
        />
      )}
    </CollectionFrame>
  );
}

const BUILDING_EVERY_MS = 2_000;

function Loaded({
  project,
  collection,
  removed,
  onRemoved,
}: {
  readonly project: string;
  readonly collection: string;
  /** What was removed just now. */
  readonly removed: string | undefined;
  readonly onRemoved: (what: string) => void;
}) {
  const info = useRequest(
    `${project}/${collection}`,
    async (signal) => ({ info: await bundoc.project(project).collection(collection).info({ signal }) }),
    BUILDING_EVERY_MS,
    // A request keeps the project open, so it is not repeated while nothing is in progress.
    ({ info: last }) => last?.indexes.some(({ state }) => state === 'building') === true,
  );
  if (info.data === undefined)
    return info.error === undefined ? (
      <Loading what="the definition" />
    ) : (
      <>
        <Head title={<Name text={collection} />} />
        <Fault error={info.error} retry={info.reload} />
      </>
    );
  const known = info.data.info;
  return (
    <>
      <Head
        title={<Name text={collection} />}
        lead={
          known === undefined
            ? 'Empty and not defined.'
            : known.rev === undefined
              ? 'Not defined.'
              : 'Defined.'
        }
      />
      <Fault error={info.error} />
      {removed === undefined ? null : (
        <p class="note" role="status">
          {removed}
        </p>
      )}
      {known === undefined ? null : (
        <>
          <dl class="figures">
            <Figure name="Documents">{count(known.documents)}</Figure>
            <Figure name="Sealed bytes">{bytes(known.bytes)}</Figure>
            <Figure name="Schema">{known.schema === undefined ? 'none' : 'checked at every write'}</Figure>
            <Figure name="Time to live">
              {known.ttl === undefined
                ? 'none'
                : `${plural(known.ttl.seconds, 'second')} after ${visible(known.ttl.field, 40)}`}
            </Figure>
          </dl>
          <Indexes info={known} />
        </>
      )}
      <Edited project={project} collection={collection} info={known} reload={info.reload} />
      {known === undefined || !may('docs:admin') ? null : (
        <RemovalPanel project={project} collection={collection} info={known} onRemoved={onRemoved} />
      )}
    </>
  );
}

function Indexes({ info }: { readonly info: CollectionInfo }) {
  if (info.indexes.length === 0) return <Empty title="No indexes">Queries scan all documents.</Empty>;
  return (
    <Table label="Indexes" heads={['Index', 'Fields', 'Kind', 'State']}>
      {info.indexes.map(({ name, fields, unique, state, indexed, total, duplicates, bytes: size }) => (
        <tr key={name}>
          <th scope="row">
            <Name text={name} />
          </th>
          <td>
            <Name text={fields.join(', ')} />
          </td>
          <td>{unique ? 'unique' : 'plain'}</td>
          <td>
            <Badge kind={state === 'ready' ? 'good' : state === 'duplicates' ? 'bad' : 'warn'}>{state}</Badge>{' '}
            {state === 'building' && total !== undefined ? (
              <progress max={total} value={indexed ?? 0} aria-label={`Build of ${name}`} />
            ) : null}
            {duplicates === undefined ? null : plural(duplicates, 'duplicate', 'duplicates')}
            {size === undefined || size === 0 ? null : ` ${bytes(size)}`}
          </td>
        </tr>
      ))}
    </Table>
  );
}

/** The definition in the form of a request. */
function definitionOf(info: CollectionInfo | undefined): CollectionDefinition {
  if (info === undefined) return { indexes: [] };
  const { schema, ttl } = info;
  return {
    indexes: info.indexes.map(({ name, fields, unique }) => ({
      name,
      fields,
      ...(unique ? { unique } : {}),
    })),
    ...(schema === undefined ? {} : { schema }),
    ...(ttl === undefined ? {} : { ttl }),
  };
}

function Edited({
  project,
  collection,
  info,
  reload,
}: {
  readonly project: string;
  readonly collection: string;
  readonly info: CollectionInfo | undefined;
  readonly reload: () => void;
}) {
  const [begin] = useState(() => JSON.stringify(definitionOf(info), null, 2));
  const [text, setText] = useState(begin);
  const [rev, setRev] = useState(info?.rev);
  const [defined, setDefined] = useState<DefinedCollection>();
  const { isBusy, error, run } = useAction();
  const isReadOnly = !may('docs:admin');
  const fault = faultOfText(text);
  const define = () =>
    run(async () => {
      const answer = await bundoc
        .project(project)
        .collection(collection)
        .define(
          JSON.parse(text) as CollectionDefinition,
          rev === undefined ? { ifNoneMatch: '*' } : { ifMatch: rev },
        );
      setRev(answer.rev);
      setDefined(answer);
      reload();
    });
  return (
    <section aria-labelledby="definition">
      <h2 id="definition">Definition</h2>
      <Editor
        text={begin}
        version="begin"
        label="Text of the definition"
        isReadOnly={isReadOnly}
        isTall={false}
        words={WORDS}
        onChange={setText}
      />
      {isReadOnly ? (
        <p class="hint">This token may not change it: that needs docs:admin.</p>
      ) : (
        <div class="toolbar under">
          <button
            type="button"
            class="primary"
            disabled={fault !== undefined || isBusy || text === begin}
            onClick={() => void define()}
          >
            {isBusy ? 'Defining…' : 'Define'}
          </button>
          <span class="hint">{fault ?? 'Replaces the whole definition. Documents do not change.'}</span>
        </div>
      )}
      <Fault error={error} />
      {defined === undefined ? null : (
        <p class={defined.existing.failing > 0 ? 'note warn' : 'note'} role="status">
          Defined. {plural(defined.existing.failing, 'document')} of {count(defined.existing.checked)} that
          were checked would be refused now
          {defined.existing.invalid_times === undefined || defined.existing.invalid_times === 0
            ? ''
            : `, and ${plural(defined.existing.invalid_times, 'document')} never expire: the time is none`}
          {defined.existing.complete ? '' : '; further documents were not checked'}.
        </p>
      )}
      {isReadOnly || !may('docs:read') ? null : (
        <SchemaCheck
          project={project}
          collection={collection}
          documents={info?.documents ?? 0}
          schema={fault === undefined ? (JSON.parse(text) as CollectionDefinition).schema : undefined}
        />
      )}
    </section>
  );
}

type Failures = Checked['failures'];

interface Found {
  readonly checked: number;
  readonly failing: number;
  readonly failures: Failures;
  readonly unreadable: number;
  /** Where to continue. */
  readonly next: string | undefined;
}

const NOTHING_FOUND: Found = { checked: 0, failing: 0, failures: [], unreadable: 0, next: undefined };
/** Maximum failing documents on the screen. */
const SHOWN = 20;

/** Checks the existing documents with the schema in the editor. */
function SchemaCheck({
  project,
  collection,
  documents,
  schema,
}: {
  readonly project: string;
  readonly collection: string;
  readonly documents: number;
  readonly schema: CollectionDefinition['schema'];
}) {
  const { isBusy, error, run, stop } = useAction();
  const [found, setFound] = useState<Found>();
  /** The schema of the results in `found`. */
  const [checked, setChecked] = useState<CollectionDefinition['schema']>();
  const check = (from: Found, of: NonNullable<typeof schema>) =>
    run(async (signal) => {
      let all = from;
      setFound(all);
      setChecked(of);
      const slices = bundoc
        .project(project)
        .collection(collection)
        .checkSchema(of, { cursor: from.next, signal, deadlineMs: 120_000 });
      for await (const { checked: more, failing, failures, unreadable, nextCursor } of slices) {
        all = {
          checked: all.checked + more,
          failing: all.failing + failing,
          failures: [...all.failures, ...failures].slice(0, SHOWN),
          unreadable: all.unreadable + unreadable.length,
          next: nextCursor,
        };
        setFound(all);
      }
    });
  const isStale = found !== undefined && JSON.stringify(checked) !== JSON.stringify(schema);
  const mayContinue = !isBusy && !isStale && found?.next !== undefined;
  return (
    <section class="panel" aria-labelledby="schema-check">
      <h2 id="schema-check">Would documents fail?</h2>
      <p class="hint">Checks every existing document with the schema above. Changes nothing.</p>
      <div class="toolbar under">
        <button
          type="button"
          disabled={schema === undefined || isBusy}
          onClick={() =>
            schema && void check(mayContinue && found !== undefined ? found : NOTHING_FOUND, schema)
          }
        >
          {isBusy ? 'Checking…' : mayContinue ? 'Continue' : 'Check the documents'}
        </button>
        <StopButton isBusy={isBusy} onStop={stop} />
        {schema === undefined ? <span class="hint">The definition has no schema.</span> : null}
      </div>
      <Fault error={error} />
      {found === undefined ? null : (
        <>
          {isBusy ? (
            <progress max={Math.max(1, documents)} value={found.checked} aria-label="Documents checked" />
          ) : null}
          <p class={found.failing > 0 ? 'note warn' : 'note'} role="status">
            {plural(found.failing, 'document')} of {count(found.checked)} that were checked would be refused
            {isBusy || found.next === undefined ? '' : '; more remain'}.
            {found.unreadable === 0 ? '' : ` ${plural(found.unreadable, 'document')} did not open.`}
            {isStale ? ' The schema has changed since.' : ''}
          </p>
          {found.failures.length === 0 ? null : (
            <Failing project={project} collection={collection} failures={found.failures} />
          )}
        </>
      )}
    </section>
  );
}

function Failing({
  project,
  collection,
  failures,
}: {
  readonly project: string;
  readonly collection: string;
  readonly failures: Failures;
}) {
  return (
    <Table label="Documents that would be refused" heads={['Document', 'Why']}>
      {failures.map(({ id, errors }) => (
        <tr key={id}>
          <th scope="row">
            <a href={places.document(project, collection, id)}>
              <Name text={id} max={48} />
            </a>
          </th>
          <td>
            {errors.map(({ path, message }) => `${visible(path, 60)} ${visible(message, 120)}`).join('; ')}
          </td>
        </tr>
      ))}
    </Table>
  );
}
