import { newKey } from '@bundoc/client/collection';
import { JsonText } from '@bundoc/client/document';
import { memberTexts } from '@bundoc/client/json-slices';
import type { WhereOptions, WrittenWhere } from '@bundoc/client/where';
import { useState } from 'preact/hooks';
import { Editor } from '../editor/editor.tsx';
import { Fault, Name, StopButton } from '../parts/basics.tsx';
import { TypedConfirmation } from '../parts/dialogs.tsx';
import { PAGE_DEADLINE_MS } from '../parts/export-dialog.tsx';
import { count, plural } from '../parts/format.ts';
import { useAction } from '../parts/use-action.ts';
import { bundoc } from '../shell/api.ts';
import { faultOfText } from './document-text.ts';
import { places } from './places.ts';
import { OPERATORS, UPDATE_OPERATORS, WRITE_MEMBERS } from './query-text.ts';
import { useText } from './use-text.ts';

export type WriteKind = 'update' | 'delete';

const BEGIN: Readonly<Record<WriteKind, string>> = {
  update: '{\n  "where": {},\n  "update": { "$set": {} }\n}',
  delete: '{\n  "where": {}\n}',
};
const MEMBERS_OF: Readonly<Record<WriteKind, readonly string[]>> = {
  update: ['where', 'update'],
  delete: ['where'],
};
const VERBS = {
  update: { button: 'Change', working: 'Changing…', done: 'changed' },
  delete: { button: 'Delete', working: 'Deleting…', done: 'deleted' },
} as const satisfies Record<WriteKind, unknown>;
const WORDS = [...WRITE_MEMBERS, ...OPERATORS, ...UPDATE_OPERATORS];

interface Place {
  readonly project: string;
  readonly collection: string;
  readonly kind: WriteKind;
}

/** What a preview has found, and what is done with it. */
interface Found {
  /** The request as it was typed: later edits change nothing of it. */
  readonly text: string;
  /** Of the whole, so that an interrupted one continues behind what it has done. */
  readonly key: string;
  readonly preview: WrittenWhere;
  /** Documents that are written so far; undefined before the confirmation. */
  readonly written: number | undefined;
  readonly end: WrittenWhere | undefined;
}

/** Whether a request lacks a member, or has one that would not be sent. */
function faultOfWrite(text: string, kind: WriteKind): string | undefined {
  const fault = faultOfText(text);
  if (fault !== undefined) return fault;
  const own = Object.keys(JSON.parse(text) as object);
  const missing = MEMBERS_OF[kind].find((name) => !own.includes(name));
  if (missing !== undefined) return `"${missing}" is missing.`;
  const unknown = own.find((name) => !MEMBERS_OF[kind].includes(name));
  return unknown === undefined ? undefined : `Only ${MEMBERS_OF[kind].join(' and ')} may stand here.`;
}

/** Sends a request with the bytes that were typed, so that its numbers stay exact. */
async function sendWrite(
  { project, collection, kind }: Place,
  text: string,
  options: WhereOptions,
): Promise<WrittenWhere> {
  const documents = bundoc.project(project).collection(collection);
  const members = memberTexts(text);
  const where = new JsonText(members.get('where') ?? '');
  const all = { ...options, deadlineMs: PAGE_DEADLINE_MS };
  return kind === 'delete'
    ? await documents.deleteWhere(where, all)
    : await documents.updateWhere(where, new JsonText(members.get('update') ?? ''), all);
}

/** Changes or deletes all documents that a condition holds for, once their number has been seen. */
export function WriteWhere(place: Place) {
  const { project, collection, kind } = place;
  const [text, change] = useText(`${project}/${collection}/${kind}`, BEGIN[kind]);
  const [found, setFound] = useState<Found>();
  const finding = useAction();
  const writing = useAction();
  const fault = faultOfWrite(text, kind);
  const isBusy = finding.isBusy || writing.isBusy;
  const preview = () => {
    setFound(undefined);
    writing.clear();
    return finding.run(async (signal) => {
      const seen = await sendWrite(place, text, { dryRun: true, signal });
      setFound({ text, key: newKey(), preview: seen, written: undefined, end: undefined });
    });
  };
  const write = (chosen: Found) =>
    writing.run(async (signal) => {
      const told = (written: number) => setFound({ ...chosen, written });
      told(chosen.written ?? 0);
      const end = await sendWrite(place, chosen.text, {
        idempotencyKey: chosen.key,
        signal,
        onWritten: told,
      });
      setFound({ ...chosen, written: end.written, end });
    });
  // A preview of another text does not tell what the button would do.
  const shown = found?.text === text || found?.written !== undefined ? found : undefined;
  return (
    <>
      <Editor
        text={text}
        version={kind}
        label={`Text of the request: ${VERBS[kind].button}`}
        words={WORDS}
        isTall={false}
        onChange={change}
        onSubmit={() => {
          if (fault === undefined && !isBusy) void preview();
        }}
      />
      <div class="toolbar under">
        <button
          type="button"
          class="primary"
          disabled={fault !== undefined || isBusy}
          onClick={() => void preview()}
        >
          {finding.isBusy ? 'Counting…' : 'Preview'}
        </button>
        <StopButton isBusy={finding.isBusy} onStop={finding.stop} />
        <span class="hint">{fault ?? 'Ctrl-Enter counts the documents, and changes nothing.'}</span>
      </div>
      <Fault error={finding.error} />
      {shown === undefined ? null : (
        <FoundPanel
          place={place}
          found={shown}
          isBusy={writing.isBusy}
          onWrite={() => void write(shown)}
          onStop={writing.stop}
        />
      )}
      <Fault error={writing.error} />
    </>
  );
}

function FoundPanel({
  place,
  found,
  isBusy,
  onWrite,
  onStop,
}: {
  readonly place: Place;
  readonly found: Found;
  readonly isBusy: boolean;
  readonly onWrite: () => void;
  readonly onStop: () => void;
}) {
  const { preview, written, end } = found;
  const { done } = VERBS[place.kind];
  const left = end?.unreadable ?? preview.unreadable;
  return (
    <section
      class={place.kind === 'delete' ? 'panel danger-panel' : 'panel'}
      aria-label="Documents that the condition holds for"
    >
      <p>
        {preview.written === 0 ? 'No document would be ' : `${plural(preview.written, 'document')} would be `}
        {done}.
      </p>
      <Ids place={place} preview={preview} />
      {left.length === 0 ? null : (
        <p role="alert">
          {plural(left.length, 'document')} cannot be read, and will stay as{' '}
          {left.length === 1 ? 'it is' : 'they are'}: {left.slice(0, 20).join(', ')}
        </p>
      )}
      {preview.written === 0 || end !== undefined ? null : (
        <Confirm place={place} found={found} isBusy={isBusy} onWrite={onWrite} onStop={onStop} />
      )}
      {written === undefined ? null : (
        <p role="status">
          {end === undefined
            ? `${count(written)} of ${plural(preview.written, 'document')} ${done} so far.`
            : `Done: ${plural(written, 'document')} ${done}, ${count(end.matched)} matched.`}
        </p>
      )}
    </section>
  );
}

/** Links to the first documents of a preview. */
function Ids({
  place: { project, collection },
  preview,
}: {
  readonly place: Place;
  readonly preview: WrittenWhere;
}) {
  if (preview.ids.length === 0) return null;
  const more = preview.written - preview.ids.length;
  return (
    <ul class="plain" aria-label="The first of them">
      {preview.ids.map((id) => (
        <li key={id}>
          <a href={places.document(project, collection, id)}>
            <Name text={id} max={60} />
          </a>
        </li>
      ))}
      {more > 0 ? <li class="muted">and {count(more)} more</li> : null}
    </ul>
  );
}

/** Asks for the last word: the collection's name before a deletion, one click before a change. */
function Confirm({
  place: { collection, kind },
  found: { preview, written },
  isBusy,
  onWrite,
  onStop,
}: Parameters<typeof FoundPanel>[0]) {
  const { button, working } = VERBS[kind];
  const action = written === undefined ? `${button} ${plural(preview.written, 'document')}` : 'Continue';
  return (
    <>
      <p class="hint">
        Each step writes up to 500 documents at once, or none of them. A document that no longer matches stays
        as it is. If you leave this view meanwhile, the rest stays.
        {kind === 'delete' ? ' It cannot be undone.' : ''}
      </p>
      {kind === 'delete' && written === undefined ? (
        <TypedConfirmation
          name={collection}
          what="collection"
          action={action}
          isBusy={isBusy}
          onConfirm={onWrite}
        />
      ) : (
        <div class="toolbar under">
          <button
            type="button"
            class={kind === 'delete' ? 'danger' : 'primary'}
            disabled={isBusy}
            onClick={onWrite}
          >
            {isBusy ? working : action}
          </button>
          <StopButton isBusy={isBusy} onStop={onStop} />
        </div>
      )}
    </>
  );
}
