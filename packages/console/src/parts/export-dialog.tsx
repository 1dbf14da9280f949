import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { Fault } from './basics.tsx';
import { Dialog } from './dialogs.tsx';
import { fileName } from './download.ts';
import { Switch } from './fields.tsx';
import { COLLECTED_BYTES_MAX, canStreamToFiles, type FileSink, openFileSink } from './file-sink.ts';
import { bytes, count, plural, visible } from './format.ts';
import type { SplitAnswer } from './json-elements.ts';
import { useAction } from './use-action.ts';

/** Documents per page of an export. Bundoc also ends a page at 16 MiB. */
export const EXPORT_PAGE = 1_000;
/** Deadline for a large page on a slow network, milliseconds. */
export const PAGE_DEADLINE_MS = 120_000;

const FORMS = { json: 'JSON array', ndjson: 'NDJSON' };
type Form = keyof typeof FORMS;
const TYPES: Readonly<Record<Form, string>> = { json: 'application/json', ndjson: 'application/x-ndjson' };

/** The cursor of the next page; undefined after the last one. */
export function nextOf(rest: SplitAnswer['rest'] | undefined): string | undefined {
  const next = rest?.['next_cursor'];
  return typeof next === 'string' ? next : undefined;
}

/** The position of the last commit that an answer shows. */
export function asOfIn(rest: SplitAnswer['rest'] | undefined): number | undefined {
  const asOf = rest?.['as_of'];
  return typeof asOf === 'number' ? asOf : undefined;
}

/** Ids of documents that do not open. */
export function unreadableOf(rest: SplitAnswer['rest']): readonly string[] {
  const ids = rest['unreadable'];
  return Array.isArray(ids) ? ids.map(String) : [];
}

/** A running export and its progress. */
interface Running {
  readonly sink: FileSink;
  readonly form: Form;
  cursor: string | undefined;
  documents: number;
  chars: number;
  readonly unreadable: string[];
}

type AskPage = (cursor: string | undefined, signal: AbortSignal) => Promise<SplitAnswer>;
type Noun = 'document' | 'record';

/** Writes the pages that are left, and the end of the file. */
async function writePages(
  one: Running,
  ask: AskPage,
  onPage: () => void,
  signal: AbortSignal,
): Promise<void> {
  do {
    const { elements, rest } = await ask(one.cursor, signal);
    const text = textOfPage(one, elements);
    await one.sink.write(text);
    one.documents += elements.length;
    one.chars += text.length;
    one.unreadable.push(...unreadableOf(rest));
    one.cursor = nextOf(rest);
    onPage();
  } while (one.cursor !== undefined);
  if (one.form === 'json') await one.sink.write(one.documents === 0 ? '[]\n' : '\n]\n');
  await one.sink.close();
}

/**
 * Writes documents or records to a file in pages. Only one page is in memory; the next one is requested once
 * it is written.
 */
export function ExportDialog({
  name,
  what,
  noun,
  total,
  ask,
  onClose,
}: {
  readonly name: string;
  readonly what: ComponentChildren;
  readonly noun: Noun;
  /** The total number, if known. */
  readonly total: number | undefined;
  readonly ask: AskPage;
  readonly onClose: () => void;
}) {
  const [form, setForm] = useState<Form>('json');
  const [isDone, setIsDone] = useState(false);
  const [, setRound] = useState(0);
  const running = useRef<Running | undefined>(undefined);
  const { isBusy, error, run, stop } = useAction();
  // An unfinished export leaves no file.
  useEffect(() => () => void abandon(running.current), []);

  const begin = async (): Promise<Running | undefined> => {
    const sink = await openFileSink(`${fileName(name)}.${form}`, TYPES[form]);
    return sink && { sink, form, cursor: undefined, documents: 0, chars: 0, unreadable: [] };
  };
  const proceed = () =>
    run(async (signal) => {
      running.current ??= await begin();
      if (running.current === undefined) return;
      await writePages(running.current, ask, () => setRound((round) => round + 1), signal);
      setIsDone(true);
    });
  const close = () => {
    stop();
    onClose();
  };
  const one = running.current;
  return (
    <Dialog title="Export" onClose={close}>
      <p>{what}, each as it is stored.</p>
      {one === undefined ? (
        <FormChoice noun={noun} form={form} onChoose={setForm} />
      ) : (
        <Progress running={one} isDone={isDone} noun={noun} total={total} />
      )}
      <Fault error={error} />
      <div class="dialog-end">
        <button type="button" onClick={close}>
          {isDone ? 'Close' : 'Cancel'}
        </button>
        {isDone ? null : (
          <button type="button" class="primary" disabled={isBusy} onClick={() => void proceed()}>
            {isBusy ? 'Exporting…' : one === undefined ? 'Choose a file' : 'Continue'}
          </button>
        )}
      </div>
    </Dialog>
  );
}

function FormChoice({
  noun,
  form,
  onChoose,
}: {
  readonly noun: Noun;
  readonly form: Form;
  readonly onChoose: (form: Form) => void;
}) {
  return (
    <>
      <Switch label="Format" choices={FORMS} chosen={form} onChoose={onChoose} />
      <p class="hint">
        {form === 'json'
          ? `Every ${noun} keeps its exact bytes.`
          : `One ${noun} per line. Line breaks between values become spaces; values keep their exact bytes.`}
      </p>
      {canStreamToFiles ? null : (
        <p class="note">
          This browser holds the file in memory until it is complete. {bytes(COLLECTED_BYTES_MAX)} are the
          bound; beyond it, no file is written.
        </p>
      )}
    </>
  );
}

function Progress({
  running: { documents, chars, unreadable },
  isDone,
  noun,
  total,
}: {
  readonly running: Running;
  readonly isDone: boolean;
  readonly noun: Noun;
  readonly total: number | undefined;
}) {
  return (
    <>
      <progress
        {...(isDone ? { max: 1, value: 1 } : total === undefined ? {} : { max: Math.max(1, total) })}
        {...(isDone || total === undefined ? {} : { value: documents })}
        aria-label="Export"
      />
      <p role="status">
        {isDone ? 'Done: ' : ''}
        {plural(documents, noun)}, {count(chars)} characters.
      </p>
      {unreadable.length === 0 ? null : (
        <p class="note warn">
          {plural(unreadable.length, 'document does', 'documents do')} not open and{' '}
          {unreadable.length === 1 ? 'is' : 'are'} not in the file:{' '}
          {unreadable
            .slice(0, 20)
            .map((id) => visible(id, 60))
            .join(', ')}
        </p>
      )}
    </>
  );
}

/** JSON has line breaks only between values, where a space is equivalent. */
const LINE_BREAKS = /[\r\n]/g;

function textOfPage({ form, documents }: Running, elements: readonly string[]): string {
  if (elements.length === 0) return '';
  if (form === 'ndjson')
    return elements.map((element) => `${element.replaceAll(LINE_BREAKS, ' ')}\n`).join('');
  return `${documents === 0 ? '[\n' : ',\n'}${elements.join(',\n')}`;
}

/** Abandons the file of an export. Does nothing for a complete one. */
async function abandon(one: Running | undefined): Promise<void> {
  try {
    await one?.sink.abandon();
  } catch {
    // The file is closed already.
  }
}
