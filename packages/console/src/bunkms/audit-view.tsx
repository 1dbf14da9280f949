import type { AuditRecord, AuditVerification } from '@bundoc/shared/contract/audit';
import { useEffect, useRef, useState } from 'preact/hooks';
import { Badge, Copy, download, Empty, Fault, Field, Head, Loading, Name, Table } from '../parts/basics.tsx';
import { count, plural, time, visible } from '../parts/format.ts';
import { useRequest } from '../parts/use-request.ts';
import { api, getJson } from '../shell/api.ts';
import { type AuditFilter, latestRecords } from './audit-pages.ts';

interface ChainHead {
  readonly seq: number;
  readonly hash: string;
}

/** What happened to keys, tokens and KEKs, the newest first; and whether the chain is as it was written. */
export function AuditView() {
  const head = useRequest('head', (signal) => getJson<ChainHead>('/audit/head', {}, signal));
  return (
    <>
      <Head
        title="Audit"
        lead="Each record holds the hash of the one before it, under a key that BunKMS alone has."
        actions={
          <button type="button" onClick={head.reload}>
            Reload
          </button>
        }
      />
      <Fault error={head.error} retry={head.reload} />
      {head.data === undefined ? (
        head.error === undefined ? (
          <Loading what="the chain" />
        ) : null
      ) : (
        <>
          <Verification head={head.data} />
          <Timeline head={head.data} />
        </>
      )}
    </>
  );
}

const RECEIPT = /^(\d{1,15}):([0-9a-f]{64})$/;

/** A receipt as it is pasted: `seq:hash`, or the JSON of a receipt. */
function receiptOf(text: string): ChainHead | undefined {
  const match = RECEIPT.exec(text.trim());
  if (match !== null) return { seq: Number(match[1]), hash: match[2] ?? '' };
  try {
    const value = JSON.parse(text) as Record<string, unknown>;
    const inner = (value['key'] ?? value) as Record<string, unknown>;
    const { seq, hash } = (inner['audit'] ?? inner) as Record<string, unknown>;
    return typeof seq === 'number' && typeof hash === 'string' ? { seq, hash } : undefined;
  } catch {
    return undefined;
  }
}

function Verification({ head }: { readonly head: ChainHead }) {
  const [text, setText] = useState('');
  const [checked, setChecked] = useState<number>();
  const [verdict, setVerdict] = useState<AuditVerification>();
  const [held, setHeld] = useState<ChainHead>();
  const [error, setError] = useState<unknown>();
  const stop = useRef<AbortController | undefined>(undefined);
  useEffect(() => () => stop.current?.abort(), []);
  const receipt = receiptOf(text);
  const isWrong = text.trim() !== '' && receipt === undefined;
  const isRunning = checked !== undefined && verdict === undefined && error === undefined;
  const verify = async () => {
    const running = new AbortController();
    stop.current = running;
    setVerdict(undefined);
    setError(undefined);
    setHeld(receipt);
    setChecked(0);
    try {
      let after: ChainHead | undefined;
      for (let done = 0; ; ) {
        const { text: answered } = await api.send({
          method: 'POST',
          path: '/audit/verify',
          body: JSON.stringify({ after, receipt, limit: 1_000 }),
          isIdempotent: true,
          signal: running.signal,
        });
        const answer = JSON.parse(answered) as AuditVerification;
        done += answer.checked;
        setChecked(done);
        if (!answer.intact || answer.complete) {
          setVerdict(answer);
          return;
        }
        after = answer.head;
      }
    } catch (thrown) {
      if (!running.signal.aborted) setError(thrown);
    }
  };
  const own = `${head.seq}:${head.hash}`;
  return (
    <section class="panel verification" aria-labelledby="verify">
      <h2 id="verify">Verify the chain</h2>
      <form
        class="toolbar"
        onSubmit={(event) => {
          event.preventDefault();
          if (!isWrong && !isRunning) void verify();
        }}
      >
        <Field
          label="Receipt"
          hint={
            isWrong
              ? 'A receipt is a number, a colon and 64 hex digits.'
              : 'If you have one: the chain must hold that record.'
          }
        >
          {(attributes) => (
            <input
              {...attributes}
              class="mono wide"
              autocomplete="off"
              spellcheck={false}
              placeholder="number:hash"
              aria-invalid={isWrong}
              value={text}
              onInput={(event) => setText(event.currentTarget.value)}
            />
          )}
        </Field>
        <button type="submit" class="primary" disabled={isWrong || isRunning}>
          {isRunning ? 'Verifying…' : 'Verify'}
        </button>
      </form>
      {isRunning ? <progress max={head.seq} value={checked} aria-label="Records verified" /> : null}
      <Fault error={error} />
      {verdict === undefined ? null : verdict.intact ? (
        <p class="verdict good" role="status">
          Intact: {plural(checked ?? 0, 'record')}
          {held === undefined ? '' : `, and record ${count(held.seq)} is the one of the receipt`}.
        </p>
      ) : (
        <p class="verdict bad" role="alert">
          Broken: record {count(verdict.fault.seq)} is {verdict.fault.reason}. The{' '}
          {plural(verdict.checked, 'record')} before it in this part are intact.
        </p>
      )}
      <details>
        <summary>A receipt of the chain as it is now</summary>
        <pre class="command receipt">
          <code>{own}</code>
        </pre>
        <Copy text={own} label="Copy" />
        <p class="hint">Keep it elsewhere. It shows later that nothing before it was cut off or changed.</p>
      </details>
    </section>
  );
}

function Timeline({ head }: { readonly head: ChainHead }) {
  const [severity, setSeverity] = useState('');
  const [key, setKey] = useState('');
  const [actor, setActor] = useState('');
  const [filter, setFilter] = useState<AuditFilter>({});
  const [older, setOlder] = useState<readonly AuditRecord[]>([]);
  const [olderThan, setOlderThan] = useState<number>();
  const [error, setError] = useState<unknown>();
  const [isBusy, setIsBusy] = useState(false);
  const first = useRequest(`${head.seq}${JSON.stringify(filter)}`, (signal) =>
    latestRecords(head.seq, filter, signal),
  );
  const apply = (next: AuditFilter) => {
    setOlder([]);
    setOlderThan(undefined);
    setFilter(next);
  };
  const end = olderThan ?? first.data?.olderThan ?? 0;
  const records = [...(first.data?.records ?? []), ...older];
  const more = async () => {
    setIsBusy(true);
    setError(undefined);
    try {
      const next = await latestRecords(end, filter, new AbortController().signal);
      setOlder((before) => [...before, ...next.records]);
      setOlderThan(next.olderThan);
    } catch (thrown) {
      setError(thrown);
    } finally {
      setIsBusy(false);
    }
  };
  const chosen = (value: string) => (value.trim() === '' ? undefined : value.trim());
  return (
    <>
      <form
        class="toolbar"
        onSubmit={(event) => {
          event.preventDefault();
          apply({ severity: chosen(severity), key: chosen(key), actor: chosen(actor) });
        }}
      >
        <Field label="Severity">
          {(attributes) => (
            <select
              {...attributes}
              value={severity}
              onChange={(event) => {
                setSeverity(event.currentTarget.value);
                apply({ ...filter, severity: chosen(event.currentTarget.value) });
              }}
            >
              <option value="">all</option>
              <option value="CRITICAL">CRITICAL</option>
              <option value="INFO">INFO</option>
            </select>
          )}
        </Field>
        <Field label="Key">
          {(attributes) => (
            <input
              {...attributes}
              class="mono"
              autocomplete="off"
              spellcheck={false}
              value={key}
              onInput={(event) => setKey(event.currentTarget.value)}
            />
          )}
        </Field>
        <Field label="Who">
          {(attributes) => (
            <input
              {...attributes}
              class="mono"
              autocomplete="off"
              spellcheck={false}
              value={actor}
              onInput={(event) => setActor(event.currentTarget.value)}
            />
          )}
        </Field>
        <button type="submit">Filter</button>
        <button
          type="button"
          class="quiet"
          disabled={records.length === 0}
          onClick={() =>
            download(
              'audit.ndjson',
              records.map((record) => `${JSON.stringify(record)}\n`).join(''),
              'application/x-ndjson',
            )
          }
        >
          Download what is shown
        </button>
      </form>
      <Fault error={first.error ?? error} retry={first.reload} />
      {first.data === undefined ? (
        first.error === undefined ? (
          <Loading what="records" />
        ) : null
      ) : records.length === 0 ? (
        <Empty title="No record is of this kind" />
      ) : (
        <Table
          label="Audit records"
          heads={[['#', 'number'], 'Time (UTC)', 'Severity', 'What', 'Who', 'Key', 'More']}
        >
          {records.map((record) => (
            <Row key={record.seq} record={record} />
          ))}
        </Table>
      )}
      <div class="pager">
        <button type="button" disabled={end === 0 || isBusy} onClick={() => void more()}>
          Older
        </button>
        {end === 0 ? null : <span class="muted">records before {count(end + 1)} are not shown</span>}
      </div>
    </>
  );
}

function Row({ record }: { readonly record: AuditRecord }) {
  const { seq, time: at, severity, action, outcome, actor, key, version, code, source, detail } = record;
  return (
    <tr class={severity === 'CRITICAL' ? 'critical' : ''}>
      <td class="number">{count(seq)}</td>
      <td class="when">{time(at)}</td>
      <td>{severity === 'CRITICAL' ? <Badge kind="bad">CRITICAL</Badge> : <Badge>INFO</Badge>}</td>
      <td>
        <code>{visible(action)}</code>{' '}
        {outcome === 'allowed' ? null : (
          <Badge kind="warn">{code === undefined ? outcome : `${outcome}: ${code}`}</Badge>
        )}
      </td>
      <td>{actor === undefined ? <span class="muted">unknown</span> : <Name text={actor} max={32} />}</td>
      <td>
        {key === undefined ? null : <Name text={key} max={32} />}
        {version === undefined ? null : <span class="muted"> v{version}</span>}
      </td>
      <td>
        <details class="cell">
          <summary>facts</summary>
          <dl>
            {Object.entries({
              source,
              request: record.request_id,
              token: record.jti,
              ...detail,
              hash: record.hash,
            }).map(([name, value]) =>
              value === undefined ? null : (
                <div key={name}>
                  <dt>{visible(name, 40)}</dt>
                  <dd>
                    <bdi class="mono">{visible(String(value), 300)}</bdi>
                  </dd>
                </div>
              ),
            )}
          </dl>
        </details>
      </td>
    </tr>
  );
}
