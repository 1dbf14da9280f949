import { elementTexts, memberTexts } from '@bundoc/client/json-slices';
import type { Explanation } from '@bundoc/client/query';
import { useState } from 'preact/hooks';
import { Editor } from '../editor/editor.tsx';
import { Empty, Fault, Figure, Head, Name, Table, TextFrame } from '../parts/basics.tsx';
import { download } from '../parts/download.ts';
import { asOfIn, EXPORT_PAGE, ExportDialog, nextOf, PAGE_DEADLINE_MS } from '../parts/export-dialog.tsx';
import { Switch } from '../parts/fields.tsx';
import { bytes, count, visible } from '../parts/format.ts';
import { splitInTurns } from '../parts/json-elements.ts';
import { useAction } from '../parts/use-action.ts';
import { api, path } from '../shell/api.ts';
import { may } from '../shell/session.ts';
import { DocumentTable, HEAD_CHARS } from './collection-view.tsx';
import { faultOfText } from './document-text.ts';
import { CollectionFrame } from './project-frame.tsx';
import { MEMBERS, OPERATORS, withMembers } from './query-text.ts';
import { useText } from './use-text.ts';
import { type WriteKind, WriteWhere } from './write-where.tsx';

type Kind = 'query' | 'count' | 'aggregate';

const BEGIN: Readonly<Record<Kind, string>> = {
  query: '{\n  "where": {},\n  "orderBy": [],\n  "limit": 50\n}',
  count: '{\n  "where": {}\n}',
  aggregate: '{\n  "groupBy": [],\n  "figures": { "documents": { "op": "count" } }\n}',
};
const NAMES: Readonly<Record<Kind, string>> = { query: 'Find', count: 'Count', aggregate: 'Aggregate' };
const ALL_NAMES: Readonly<Record<Kind | WriteKind, string>> = {
  ...NAMES,
  update: 'Change',
  delete: 'Delete',
};
const FORMS = { table: 'Table', text: 'Text' };
type Form = keyof typeof FORMS;
/** Maximum characters of an answer on the screen; the file has all of it. */
const SHOWN = 100_000;
const WORDS = [...MEMBERS, ...OPERATORS];

export function QueryView({ project = '', collection = '' }: Partial<CollectionPath>) {
  return (
    <CollectionFrame project={project} collection={collection} here="Query">
      {() => <Request key={`${project}/${collection}`} project={project} collection={collection} />}
    </CollectionFrame>
  );
}

interface CollectionPath {
  readonly project: string;
  readonly collection: string;
}

interface Answer {
  readonly kind: Kind;
  readonly text: string;
  /** The beginnings of the matching documents. */
  readonly documents: readonly string[];
  readonly explain: Explanation | undefined;
  readonly ms: number;
  /** The position of the last commit that it shows. */
  readonly asOf: number | undefined;
  readonly next: string | undefined;
}

async function readAnswer(kind: Kind, text: string, ms: number, signal: AbortSignal): Promise<Answer> {
  if (kind !== 'query') {
    const explain = JSON.parse(memberTexts(text).get('explain') ?? 'null') ?? undefined;
    const asOf = JSON.parse(memberTexts(text).get('as_of') ?? 'null') ?? undefined;
    return { kind, text, documents: [], explain, ms, asOf, next: undefined };
  }
  const { elements, rest } = await splitInTurns(text, HEAD_CHARS, signal);
  const explain = rest['explain'] as Explanation | undefined;
  return { kind, text, documents: elements, explain, ms, asOf: asOfIn(rest), next: nextOf(rest) };
}

function Request(place: CollectionPath) {
  const [kind, setKind] = useState<Kind | WriteKind>('query');
  const isWrite = kind === 'update' || kind === 'delete';
  return (
    <>
      <Head title="Query" lead={<Name text={place.collection} />} />
      <Switch
        label="What to do"
        choices={may('docs:write') ? ALL_NAMES : NAMES}
        chosen={kind}
        onChoose={setKind}
      />
      {isWrite ? (
        <WriteWhere key={kind} {...place} kind={kind} />
      ) : (
        <Asked key={kind} {...place} kind={kind} />
      )}
    </>
  );
}

type AskedPlace = CollectionPath & { readonly kind: Kind };

/** What is asked of a collection, as it is typed, and the last answer. */
function useQuery({ project, collection, kind }: AskedPlace) {
  const [text, change] = useText(`${project}/${collection}/${kind}`, BEGIN[kind]);
  const [answer, setAnswer] = useState<Answer>();
  const { isBusy, error, run } = useAction();
  const send = async (members: Readonly<Record<string, unknown>>, signal: AbortSignal) => {
    const { text: answered } = await api.send({
      method: 'POST',
      path: path('projects', project, 'collections', collection, kind),
      body: withMembers(text, members),
      deadlineMs: PAGE_DEADLINE_MS,
      isIdempotent: true,
      signal,
    });
    return answered;
  };
  return {
    text,
    change,
    answer,
    isBusy,
    error,
    send,
    fault: faultOfText(text),
    ask: (cursor?: string) =>
      run(async (signal) => {
        const start = performance.now();
        const answered = await send({ explain: true, cursor }, signal);
        const ms = Math.round(performance.now() - start);
        setAnswer(await readAnswer(kind, answered, ms, signal));
      }),
  };
}

function Asked({ project, collection, kind }: AskedPlace) {
  const { text, answer, isBusy, error, send, fault, ask, change } = useQuery({ project, collection, kind });
  const [isExporting, setIsExporting] = useState(false);
  return (
    <>
      <Editor
        text={text}
        version={kind}
        label={`Text of the request: ${NAMES[kind]}`}
        words={WORDS}
        isTall={false}
        onChange={change}
        onSubmit={() => {
          if (fault === undefined) void ask();
        }}
      />
      <div class="toolbar under">
        <button
          type="button"
          class="primary"
          disabled={fault !== undefined || isBusy}
          onClick={() => void ask()}
        >
          {isBusy ? 'Asking…' : 'Run'}
        </button>
        {kind === 'query' ? (
          <button type="button" disabled={fault !== undefined || isBusy} onClick={() => setIsExporting(true)}>
            Export
          </button>
        ) : null}
        <span class="hint">{fault ?? 'Ctrl-Enter runs it. A quote offers the operators.'}</span>
      </div>
      {isExporting ? (
        <ExportDialog
          name={`${project}-${collection}-query`}
          what="All documents that match the query, on all pages"
          noun="document"
          total={undefined}
          ask={async (cursor, signal) =>
            splitInTurns(await send({ limit: EXPORT_PAGE, cursor }, signal), Infinity, signal)
          }
          onClose={() => setIsExporting(false)}
        />
      ) : null}
      <Fault error={error} />
      {answer === undefined || error !== undefined ? null : (
        <Answered project={project} collection={collection} answer={answer} more={(next) => void ask(next)} />
      )}
    </>
  );
}

function Answered({
  project,
  collection,
  answer,
  more,
}: CollectionPath & {
  readonly answer: Answer;
  readonly more: (cursor: string) => void;
}) {
  const [form, setForm] = useState<Form>('table');
  return (
    <section aria-label="Answer">
      {answer.explain === undefined ? null : (
        <Explained explain={answer.explain} ms={answer.ms} asOf={answer.asOf} />
      )}
      <div class="toolbar under">
        <Switch label="How to show it" choices={FORMS} chosen={form} onChoose={setForm} />
        <button type="button" onClick={() => download(`${answer.kind}.json`, answer.text)}>
          Download
        </button>
      </div>
      {form === 'text' ? (
        <TextFrame label="Text of the answer" text={answer.text.slice(0, SHOWN)} />
      ) : (
        <AnswerTable project={project} collection={collection} answer={answer} />
      )}
      {answer.next === undefined ? null : (
        <div class="pager">
          <button type="button" onClick={() => more(answer.next ?? '')}>
            Next page
          </button>
        </div>
      )}
    </section>
  );
}

function AnswerTable({ project, collection, answer }: CollectionPath & { readonly answer: Answer }) {
  if (answer.kind === 'count')
    return (
      <dl class="figures">
        <Figure name="Documents">{memberTexts(answer.text).get('count') ?? ''}</Figure>
      </dl>
    );
  if (answer.kind === 'aggregate') return <Groups text={answer.text} />;
  if (answer.documents.length === 0) return <Empty title="No document matches" />;
  return <DocumentTable project={project} collection={collection} documents={answer.documents} fields={[]} />;
}

function Groups({ text }: { readonly text: string }) {
  const rows = elementTexts(memberTexts(text).get('groups') ?? '[]').map((group) => {
    const members = memberTexts(group);
    return {
      group: memberTexts(members.get('group') ?? '{}'),
      figures: memberTexts(members.get('figures') ?? '{}'),
    };
  });
  const names = (of: 'group' | 'figures') => [...new Set(rows.flatMap((row) => [...row[of].keys()]))];
  const [by, figures] = [names('group'), names('figures')];
  if (rows.length === 0) return <Empty title="No groups" />;
  return (
    <Table
      label="Groups"
      heads={[
        ...(by.length === 0 ? ['Group'] : by.map((name) => visible(name, 60))),
        ...figures.map((name) => [visible(name, 60), 'number'] as const),
      ]}
    >
      {rows.map((row, at) => (
        <tr key={at}>
          {by.length === 0 ? <th scope="row">all</th> : null}
          {by.map((name) => (
            <td key={name}>
              {row.group.has(name) ? (
                <bdi class="mono">{visible(row.group.get(name) ?? '', 120)}</bdi>
              ) : (
                <span class="muted">none</span>
              )}
            </td>
          ))}
          {figures.map((name) => (
            <td key={name} class="number">
              <bdi class="mono">{visible(row.figures.get(name) ?? '', 120)}</bdi>
            </td>
          ))}
        </tr>
      ))}
    </Table>
  );
}

const ORDERS: Readonly<Record<Explanation['order'], string>> = {
  creation: 'order of creation',
  index: 'by the index',
  sorted: 'sorted after reading',
};

/** Shows how much was read to find the matches. */
function Explained({ explain, ms, asOf }: Pick<Answer, 'ms' | 'asOf'> & { readonly explain: Explanation }) {
  const { documents_scanned: scanned, documents_matched: matched, index, order } = explain;
  const share = scanned === 0 ? 0 : Math.round((matched / scanned) * 100);
  return (
    <div class="explain panel">
      <dl class="figures">
        <Figure name="Matched">{count(matched)}</Figure>
        <Figure name="Scanned">{count(scanned)}</Figure>
        <Figure name="Sealed bytes read">{bytes(explain.bytes_scanned)}</Figure>
        {asOf === undefined ? null : <Figure name="As of position">{String(asOf)}</Figure>}
        <Figure name="Found by">{index === null ? 'scan' : <Name text={index} />}</Figure>
        <Figure name="Order">{ORDERS[order]}</Figure>
        <Figure name="Time">{ms} ms</Figure>
      </dl>
      <meter min={0} max={100} value={share} aria-label="Share of scanned documents that matched">
        {share} %
      </meter>
      <p class="hint">
        {scanned === 0 ? 'No document was scanned.' : `${share} % of the scanned documents matched.`}
        {index === null && scanned > 1_000 ? ' An index on the fields of the condition would read less.' : ''}
      </p>
    </div>
  );
}
