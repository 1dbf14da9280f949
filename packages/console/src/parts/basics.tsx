import { BundocError } from '@bundoc/client/error';
import type { ComponentChildren } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { visible } from './format.ts';
import type { Requested } from './use-request.ts';

/**
 * A name or id from others: isolated, so that its text direction and marks do not affect the surroundings.
 */
export function Name({ text, max }: { readonly text: string; readonly max?: number | undefined }) {
  return <bdi class="mono name">{visible(text, max)}</bdi>;
}

export function Badge({
  kind = 'plain',
  children,
}: {
  readonly kind?: 'plain' | 'good' | 'warn' | 'bad' | 'accent' | undefined;
  readonly children: ComponentChildren;
}) {
  return <span class={`badge badge-${kind}`}>{children}</span>;
}

/** A figure with its name. */
export function Figure({ name, children }: { readonly name: string; readonly children: ComponentChildren }) {
  return (
    <div class="figure">
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** The header of a view, with `actions` at its end. */
export function Head({
  title,
  lead,
  actions,
}: {
  readonly title: ComponentChildren;
  readonly lead?: ComponentChildren;
  readonly actions?: ComponentChildren;
}) {
  return (
    <header class="head">
      <div class="head-text">
        <h1 tabIndex={-1}>{title}</h1>
        {lead === undefined ? null : <p class="lead">{lead}</p>}
      </div>
      {actions === undefined ? null : <div class="actions">{actions}</div>}
    </header>
  );
}

export function Empty({
  title,
  children,
}: {
  readonly title: string;
  readonly children?: ComponentChildren;
}) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children === undefined ? null : <p>{children}</p>}
    </div>
  );
}

export function Loading({ what }: { readonly what: string }) {
  return (
    <p class="loading" role="status">
      Loading {what}…
    </p>
  );
}

/** Titles of failures without an answer of the service. */
const TITLES: Readonly<Record<string, string>> = {
  network_error: 'The service does not answer',
  deadline_exceeded: 'The service did not answer in time',
  unexpected_answer: 'The answer is not from the service',
};

/** What the user can do about a refusal. */
const ADVICE: Readonly<Record<string, string>> = {
  network_error: 'Your input is kept. Try again once it answers.',
  deadline_exceeded: 'It may be busy, or not reach BunKMS. Your input is kept.',
  unauthenticated: 'Paste a new token. Your input is kept.',
  forbidden: 'This token does not allow it. Use one with the named scope.',
  kms_unavailable:
    'Bundoc does not reach BunKMS, and has no cached key of this project. Check that BunKMS runs.',
  sealed: 'BunKMS runs without the right KEK. Put it into the ring and restart BunKMS.',
  rate_limited: 'Wait a moment, then try again.',
  overloaded: 'Wait a moment, then try again.',
  snapshot_too_old: 'Too much was written meanwhile. Ask again, or narrow the condition.',
  project_destroyed: 'Its key is destroyed, so its content cannot be decrypted.',
};

export function Fault({
  error,
  retry,
}: {
  readonly error: unknown;
  readonly retry?: (() => void) | undefined;
}) {
  if (error === undefined) return null;
  const known = error instanceof BundocError ? error : undefined;
  const title =
    known === undefined ? String(error) : String(known.problem['title'] ?? TITLES[known.code] ?? known.code);
  const advice = known === undefined ? undefined : ADVICE[known.code];
  return (
    <div class="fault" role="alert">
      <p class="fault-title">
        {visible(title, 300)}
        {known === undefined ? null : <code>{known.code}</code>}
      </p>
      {known?.detail === undefined ? null : <p>{visible(known.detail, 600)}</p>}
      {known === undefined || known.errors.length === 0 ? null : (
        <ul>
          {known.errors.map(({ path, message }) => (
            <li key={path}>
              <code>{visible(path)}</code> {visible(message, 400)}
            </li>
          ))}
        </ul>
      )}
      {advice === undefined ? null : <p>{advice}</p>}
      <div class="fault-end">
        {retry === undefined ? null : (
          <button type="button" onClick={retry}>
            Try again
          </button>
        )}
        {known?.requestId === undefined ? null : (
          <span class="muted">
            request <code>{known.requestId}</code>
          </span>
        )}
      </div>
    </div>
  );
}

/** Shows the result of a request, or that it is running. A failure is shown above. */
export function Loaded<T>({
  request: { data, error, reload },
  what,
  children,
}: {
  readonly request: Requested<T>;
  readonly what: string;
  readonly children: (data: T) => ComponentChildren;
}) {
  return (
    <>
      <Fault error={error} retry={reload} />
      {data !== undefined ? children(data) : error === undefined ? <Loading what={what} /> : null}
    </>
  );
}

export function StopButton({ isBusy, onStop }: { readonly isBusy: boolean; readonly onStop: () => void }) {
  if (!isBusy) return null;
  return (
    <button type="button" onClick={onStop}>
      Stop
    </button>
  );
}

export function Copy({ text, label }: { readonly text: string; readonly label: string }) {
  const [isDone, setIsDone] = useState(false);
  useEffect(() => {
    if (!isDone) return;
    const timer = setTimeout(() => setIsDone(false), 1_500);
    return () => clearTimeout(timer);
  }, [isDone]);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setIsDone(true);
  };
  return (
    <button type="button" class="small" onClick={() => void copy()}>
      {isDone ? 'Copied' : label}
    </button>
  );
}

/** A line to be copied: a command, or a receipt. */
export function CopyLine({
  text,
  label = 'Copy',
  isReceipt = true,
}: {
  readonly text: string;
  readonly label?: string;
  readonly isReceipt?: boolean;
}) {
  return (
    <>
      <pre class={isReceipt ? 'command receipt' : 'command'}>
        <code>{text}</code>
      </pre>
      <Copy text={text} label={label} />
    </>
  );
}

/**
 * A table with its own scrollbar if it is wider than the page. On a narrow screen each row is a card, in
 * which each cell follows its head.
 */
export function Table({
  label,
  heads,
  children,
}: {
  readonly label: string;
  readonly heads: readonly (string | readonly [string, string])[];
  readonly children: ComponentChildren;
}) {
  const columns = heads.map((head) => (typeof head === 'string' ? ([head, ''] as const) : head));
  const body = useRef<HTMLTableSectionElement>(null);
  useLayoutEffect(() => {
    for (const row of body.current?.rows ?? [])
      for (const [at, cell] of [...row.cells].entries())
        if (cell.tagName === 'TD') cell.dataset['head'] = columns[at]?.[0] ?? '';
  });
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reached by the keyboard
    <section class="table-frame" tabIndex={0} aria-label={label}>
      <table>
        <thead>
          <tr>
            {columns.map(([text, kind]) => (
              <th key={text} scope="col" class={kind}>
                {text}
              </th>
            ))}
          </tr>
        </thead>
        <tbody ref={body}>{children}</tbody>
      </table>
    </section>
  );
}

/** A long text in a frame that scrolls. */
export function TextFrame({ label, text }: { readonly label: string; readonly text: string }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reached by the keyboard
    <section class="large" tabIndex={0} aria-label={label}>
      <pre>
        <bdi>{text}</bdi>
      </pre>
    </section>
  );
}
