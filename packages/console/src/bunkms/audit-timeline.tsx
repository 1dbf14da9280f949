import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { useEffect, useState } from 'preact/hooks';
import { Badge, Empty, Fault, Loading, Name, Table } from '../parts/basics.tsx';
import { ExportDialog } from '../parts/export-dialog.tsx';
import { Field, SelectField, TextField } from '../parts/fields.tsx';
import { count, time, visible } from '../parts/format.ts';
import { splitInTurns } from '../parts/json-elements.ts';
import { useAction } from '../parts/use-action.ts';
import { useRequest } from '../parts/use-request.ts';
import { api } from '../shell/api.ts';
import { type AuditFilter, latestRecords, recordsBehind } from './audit-pages.ts';
import type { ChainHead } from './audit-verification.tsx';

/** How often to poll for new records while following. */
const FOLLOW_EVERY_MS = 2_000;
/** Maximum new records on the screen. */
const FOLLOWED_MAX = 500;
const EXPORT_LIMIT = 500;

const SEVERITIES = [
  ['', 'all'],
  ['CRITICAL', 'CRITICAL'],
  ['INFO', 'INFO'],
] as const;

interface Typed {
  readonly severity: string;
  readonly key: string;
  readonly actor: string;
  readonly from: string;
  readonly to: string;
}

const NOTHING_TYPED: Typed = { severity: '', key: '', actor: '', from: '', to: '' };

/** The filter from the form, whose times are UTC. */
function filterOf(typed: Typed): AuditFilter {
  const chosen = (value: string) => (value.trim() === '' ? undefined : value.trim());
  const utc = (value: string) => (value === '' ? undefined : `${value}:00Z`);
  return {
    severity: chosen(typed.severity),
    key: chosen(typed.key),
    actor: chosen(typed.actor),
    from: utc(typed.from),
    to: utc(typed.to),
  };
}

/** The records of the chain, newest first. */
export function Timeline({ head }: { readonly head: ChainHead }) {
  const [filter, setFilter] = useState<AuditFilter>({});
  const [isFollowing, setIsFollowing] = useState(false);
  const [isExporting, setIsExporting] = useState(false);
  return (
    <section aria-labelledby="records">
      <div class="section-head">
        <h2 id="records">Records</h2>
        <span class="live" role="status">
          {isFollowing ? <Badge kind="good">live</Badge> : null}
        </span>
        <button type="button" aria-pressed={isFollowing} onClick={() => setIsFollowing(!isFollowing)}>
          {isFollowing ? 'Stop following' : 'Follow live'}
        </button>
        <button type="button" onClick={() => setIsExporting(true)}>
          Export
        </button>
      </div>
      <FilterForm onFilter={setFilter} />
      <Records
        key={`${head.seq}${JSON.stringify(filter)}`}
        head={head}
        filter={filter}
        isFollowing={isFollowing}
      />
      {isExporting ? (
        <ExportDialog
          name="audit"
          what="All records that match the filter, from the beginning of the chain"
          noun="record"
          total={Object.values(filter).every((value) => value === undefined) ? head.seq : undefined}
          ask={async (cursor, signal) => {
            const { text } = await api.send({
              method: 'GET',
              path: '/audit',
              query: { ...filter, limit: EXPORT_LIMIT, cursor },
              isIdempotent: true,
              signal,
            });
            return splitInTurns(text, Infinity, signal);
          }}
          onClose={() => setIsExporting(false)}
        />
      ) : null}
    </section>
  );
}

function FilterForm({ onFilter }: { readonly onFilter: (filter: AuditFilter) => void }) {
  const [typed, setTyped] = useState(NOTHING_TYPED);
  const change = (next: Partial<Typed>) => setTyped((before) => ({ ...before, ...next }));
  return (
    <form
      class="toolbar filters"
      onSubmit={(event) => {
        event.preventDefault();
        onFilter(filterOf(typed));
      }}
    >
      <SelectField
        label="Severity"
        value={typed.severity}
        choices={SEVERITIES}
        onChange={(severity) => {
          change({ severity });
          onFilter(filterOf({ ...typed, severity }));
        }}
      />
      <TextField label="Key" value={typed.key} onInput={(key) => change({ key })} />
      <TextField label="Who" value={typed.actor} onInput={(actor) => change({ actor })} />
      <TimeField label="From (UTC)" value={typed.from} onInput={(from) => change({ from })} />
      <TimeField label="To (UTC)" value={typed.to} onInput={(to) => change({ to })} />
      <button type="submit">Filter</button>
      <button
        type="button"
        class="quiet"
        onClick={() => {
          setTyped(NOTHING_TYPED);
          onFilter({});
        }}
      >
        Clear
      </button>
    </form>
  );
}

function TimeField({
  label,
  value,
  onInput,
}: {
  readonly label: string;
  readonly value: string;
  readonly onInput: (value: string) => void;
}) {
  return (
    <Field label={label}>
      {(attributes) => (
        <input
          {...attributes}
          type="datetime-local"
          value={value}
          onInput={(event) => onInput(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}

function Records({
  head,
  filter,
  isFollowing,
}: {
  readonly head: ChainHead;
  readonly filter: AuditFilter;
  readonly isFollowing: boolean;
}) {
  const first = useRequest('first', (signal) => latestRecords(head.seq, filter, signal));
  const [older, setOlder] = useState<readonly AuditRecord[]>([]);
  const [olderThan, setOlderThan] = useState<number>();
  const { isBusy, error, run } = useAction();
  const followed = useFollowed(head.seq, filter, isFollowing);
  const end = olderThan ?? first.data?.olderThan ?? 0;
  const records = [...followed.records, ...(first.data?.records ?? []), ...older];
  const more = () =>
    run(async (signal) => {
      const next = await latestRecords(end, filter, signal);
      setOlder((before) => [...before, ...next.records]);
      setOlderThan(next.olderThan);
    });
  return (
    <>
      <Fault error={first.error ?? followed.error ?? error} retry={first.reload} />
      {first.data === undefined ? (
        first.error === undefined ? (
          <Loading what="records" />
        ) : null
      ) : records.length === 0 ? (
        <Empty title="No matching records" />
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

/** New records while following, newest first. */
function useFollowed(
  from: number,
  filter: AuditFilter,
  isFollowing: boolean,
): { readonly records: readonly AuditRecord[]; readonly error: unknown } {
  const [records, setRecords] = useState<readonly AuditRecord[]>([]);
  const [end, setEnd] = useState(from);
  const look = useRequest(
    isFollowing ? 'follow' : undefined,
    async (signal) => recordsBehind(end, filter, signal),
    FOLLOW_EVERY_MS,
  );
  useEffect(() => {
    if (look.data === undefined || look.data.end === end) return;
    const { records: next, end: nextEnd } = look.data;
    setRecords((before) => [...next, ...before].slice(0, FOLLOWED_MAX));
    setEnd(nextEnd);
  }, [look.data]);
  return { records, error: look.error };
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
      <td class="action whole">
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
