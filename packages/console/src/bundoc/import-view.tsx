import { useRef, useState } from 'preact/hooks';
import { Empty, Fault, Figure, Head, Name, StopButton, Table } from '../parts/basics.tsx';
import { download } from '../parts/download.ts';
import { Field } from '../parts/fields.tsx';
import { bytes, count, plural, visible } from '../parts/format.ts';
import { useAction } from '../parts/use-action.ts';
import { may } from '../shell/session.ts';
import { type ImportProgress, importFile, NOTHING_DONE, REFUSALS_KEPT } from './import-file.ts';
import { places } from './places.ts';
import { CollectionFrame } from './project-frame.tsx';

/** Writes the documents of a file into a collection. */
export function ImportView({
  project = '',
  collection = '',
}: {
  readonly project?: string;
  readonly collection?: string;
}) {
  if (!may('docs:write'))
    return <Head title="Import" lead="This token may not write documents: that needs docs:write." />;
  return (
    <CollectionFrame project={project} collection={collection} here="Import">
      {() => <Import key={`${project}/${collection}`} project={project} collection={collection} />}
    </CollectionFrame>
  );
}

function Import(place: { readonly project: string; readonly collection: string }) {
  const [file, setFile] = useState<File>();
  const [progress, setProgress] = useState<ImportProgress>(NOTHING_DONE);
  const latest = useRef(progress);
  const [state, setState] = useState<'new' | 'begun' | 'done'>('new');
  const { isBusy, error, run, stop, clear } = useAction();
  const tell = (next: ImportProgress) => {
    latest.current = next;
    setProgress(next);
  };
  const begin = (from: File) =>
    run(async (signal) => {
      setState('begun');
      await importFile(from, place, latest.current, signal, tell);
      setState('done');
    });
  const choose = (chosen: File | undefined) => {
    setFile(chosen);
    setState('new');
    tell(NOTHING_DONE);
    clear();
  };
  const begun = state === 'new' ? undefined : file;
  return (
    <>
      <Head
        title="Import"
        lead={
          <>
            into <Name text={place.collection} />
          </>
        }
      />
      <div class="panel form">
        <FileChoice isBusy={isBusy} onChoose={choose} />
        <div class="actions">
          {state === 'done' ? null : (
            <button
              type="button"
              class="primary"
              disabled={file === undefined || isBusy}
              onClick={() => file && void begin(file)}
            >
              {isBusy ? 'Importing…' : state === 'new' ? 'Import' : 'Continue'}
            </button>
          )}
          <StopButton isBusy={isBusy} onStop={stop} />
        </div>
        {begun === undefined ? null : (
          <>
            <progress max={Math.max(1, begun.size)} value={progress.bytesRead} aria-label="Import" />
            <p role="status">
              {state === 'done' ? 'Done: ' : ''}
              {plural(progress.written, 'document')} written, {count(progress.refused)} refused.
            </p>
          </>
        )}
      </div>
      <Fault error={error} />
      {begun === undefined ? null : (
        <dl class="figures">
          <Figure name="Written">{count(progress.written)}</Figure>
          <Figure name="Refused">{count(progress.refused)}</Figure>
          <Figure name="Read">
            {bytes(progress.bytesRead)} of {bytes(begun.size)}
          </Figure>
        </dl>
      )}
      {state === 'done' && progress.refused === 0 ? (
        <Empty title="Every document was written">
          <a href={places.collection(place.project, place.collection)}>Show the collection</a>
        </Empty>
      ) : null}
      {progress.refused === 0 ? null : <Refused progress={progress} />}
    </>
  );
}

function FileChoice({
  isBusy,
  onChoose,
}: {
  readonly isBusy: boolean;
  readonly onChoose: (file: File | undefined) => void;
}) {
  return (
    <>
      <Field
        label="File"
        hint="NDJSON with one document per line, or one JSON array. A document with an _id replaces an existing one; others get an _id."
      >
        {(attributes) => (
          <input
            {...attributes}
            type="file"
            accept=".json,.ndjson,.jsonl,application/json,application/x-ndjson"
            disabled={isBusy}
            onChange={(event) => onChoose(event.currentTarget.files?.[0])}
          />
        )}
      </Field>
      <p class="hint">
        Each document keeps its exact bytes.{' '}
        {globalThis.isSecureContext
          ? 'After an interruption, choose the same file again. No document is duplicated.'
          : 'Over plain HTTP, a repeated import duplicates documents without an _id.'}
      </p>
      <p class="hint">
        A file that mongoexport, CouchDB or Firestore wrote: <code>bundoc import --format</code> reads its
        types. See <code>docs/how-to/coming-from.md</code>.
      </p>
    </>
  );
}

/** Maximum refusals on the screen; the file has all that are kept. */
const SHOWN = 100;

function Refused({ progress: { refusals, refused } }: { readonly progress: ImportProgress }) {
  return (
    <section aria-labelledby="refused">
      <div class="section-head">
        <h2 id="refused">Refused</h2>
        <button
          type="button"
          class="small"
          onClick={() =>
            download(
              'refused.ndjson',
              refusals.map((refusal) => `${JSON.stringify(refusal)}\n`).join(''),
              'application/x-ndjson',
            )
          }
        >
          Download the list
        </button>
      </div>
      <Table label="Refused records" heads={[['Record', 'number'], 'Id', 'Why']}>
        {refusals.slice(0, SHOWN).map(({ number, id, reason }) => (
          <tr key={number}>
            <td class="number">{count(number)}</td>
            <td>{id === undefined ? <span class="muted">none</span> : <Name text={id} max={60} />}</td>
            <td>{visible(reason, 300)}</td>
          </tr>
        ))}
      </Table>
      {refused > SHOWN ? (
        <p class="hint">
          The first {count(SHOWN)} of {count(refused)} are shown. The list holds up to {count(REFUSALS_KEPT)}.
        </p>
      ) : null}
    </section>
  );
}
