import type { DestroyReceipt, KeyDetail, KeyLease, LeasePage } from '@bundoc/shared/contract/keys';
import { useState } from 'preact/hooks';
import {
  Badge,
  Copy,
  Dialog,
  Empty,
  Fault,
  Figure,
  Head,
  Loading,
  Name,
  Table,
  TextField,
  TypedConfirmation,
} from '../parts/basics.tsx';
import { download } from '../parts/download.ts';
import { span, time } from '../parts/format.ts';
import { useAction } from '../parts/use-action.ts';
import { useRequest } from '../parts/use-request.ts';
import { api, getJson, path } from '../shell/api.ts';
import { Crumbs } from '../shell/crumbs.tsx';
import { may, nowMs } from '../shell/session.ts';
import { Holder, KeyState } from './keys-view.tsx';
import { places } from './places.ts';

type Asked = 'rotate' | 'disable' | 'enable' | 'restore' | 'take-over' | 'schedule' | 'destroy';

/** One key: its versions, who may hold it, and what may be done with it. */
export function KeyView({ name = '' }: { readonly name?: string }) {
  return (
    <>
      <Crumbs
        steps={[
          { name: 'Keys', href: places.keys() },
          { name, href: places.key(name) },
        ]}
      />
      <Loaded key={name} name={name} />
    </>
  );
}

function Loaded({ name }: { readonly name: string }) {
  const key = useRequest(name, async (signal) => {
    const { text, headers } = await api.send({
      method: 'GET',
      path: path('keys', name),
      signal,
      isIdempotent: true,
    });
    return { detail: JSON.parse(text) as KeyDetail, etag: headers.get('etag') ?? undefined };
  });
  const [asked, setAsked] = useState<Asked>();
  const { isBusy, error, run, clear } = useAction();
  const [receipt, setReceipt] = useState<DestroyReceipt>();
  if (key.data === undefined)
    return key.error === undefined ? (
      <Loading what="the key" />
    ) : (
      <Fault error={key.error} retry={key.reload} />
    );
  const { detail, etag } = key.data;
  const isHeld = detail.holder !== undefined;

  const act = async (
    method: 'POST' | 'DELETE',
    target: string,
    query: Record<string, string> = {},
    body?: string,
  ) => {
    await run(async () => {
      const { text, status } = await api.send({
        method,
        path: target,
        query,
        body,
        headers: { 'if-match': etag },
        isIdempotent: false,
      });
      if (status === 200 && query['pending_days'] === '0') setReceipt(JSON.parse(text) as DestroyReceipt);
      setAsked(undefined);
    });
    key.reload();
  };
  const own = path('keys', name);
  const actions = actionsOf(detail);
  return (
    <>
      <Head
        title={<Name text={name} />}
        lead={
          <>
            <KeyState state={detail.state} /> {stateText(detail)}
          </>
        }
        actions={actions.map(([action, label, isGrave]) => (
          <button
            key={action}
            type="button"
            class={action === 'rotate' ? 'primary' : isGrave ? 'danger quiet' : ''}
            onClick={() => {
              clear();
              setAsked(action);
            }}
          >
            {label}
          </button>
        ))}
      />
      <Fault error={key.error} />
      {receipt === undefined ? null : <Receipt receipt={receipt} />}
      <dl class="figures">
        <Figure name="Version">{detail.version}</Figure>
        <Figure name="Held by">
          <Holder holder={detail.holder} />
        </Figure>
        <Figure name="Age">{span(nowMs.value - Date.parse(detail.created_at))}</Figure>
        <Figure name="Next rotation">
          {detail.next_rotation_at === undefined
            ? 'by hand'
            : `in ${span(Date.parse(detail.next_rotation_at) - nowMs.value)}`}
        </Figure>
        <Figure name="Leaves BunKMS">{detail.exportable ? 'to its holder' : 'never'}</Figure>
        <Figure name="Check value">
          <code>{detail.kcv.slice(0, 8)}</code>
        </Figure>
      </dl>
      <h2>Versions</h2>
      <Table label="Versions" heads={['Version', 'State', 'Made (UTC)', 'Check value']}>
        {[...detail.versions]
          .reverse()
          .map(({ version, state, created_at: made, destroyed_at: gone, kcv }) => (
            <tr key={version}>
              <th scope="row" class="number">
                {version}
              </th>
              <td>
                {version === detail.version && state === 'available' ? (
                  <Badge kind="accent">current</Badge>
                ) : (
                  <Badge kind={state === 'available' ? 'plain' : 'bad'}>{state}</Badge>
                )}
                {gone === undefined ? null : <span class="muted"> {time(gone)}</span>}
              </td>
              <td class="when">{time(made)}</td>
              <td>
                <code>{kcv.slice(0, 16)}</code>
              </td>
            </tr>
          ))}
      </Table>
      <Leases name={name} />
      {asked === undefined ? null : (
        <Dialog title={TITLES[asked]} onClose={() => setAsked(undefined)}>
          <p>{explanationOf(asked, isHeld)}</p>
          <Fault error={error} />
          {asked === 'destroy' ? (
            <TypedConfirmation
              name={name}
              what="key"
              action="Destroy for ever"
              isBusy={isBusy}
              onConfirm={() => void act('DELETE', own, { pending_days: '0', confirm: name })}
            />
          ) : null}
          {asked === 'take-over' ? (
            <TakeOver
              isBusy={isBusy}
              onConfirm={(storage, force) =>
                void act('POST', `${own}/take-over`, {}, JSON.stringify({ storage, force }))
              }
            />
          ) : null}
          <div class="dialog-end">
            <button type="button" onClick={() => setAsked(undefined)}>
              Cancel
            </button>
            {asked === 'destroy' || asked === 'take-over' ? null : (
              <button
                type="button"
                class={asked === 'schedule' ? 'danger' : 'primary'}
                disabled={isBusy}
                onClick={() =>
                  void (asked === 'schedule'
                    ? act('DELETE', own, { pending_days: '30' })
                    : act('POST', `${own}/${asked}`))
                }
              >
                {LABELS[asked]}
              </button>
            )}
          </div>
        </Dialog>
      )}
    </>
  );
}

const LABELS: Readonly<Record<Asked, string>> = {
  rotate: 'Rotate',
  disable: 'Disable',
  enable: 'Enable',
  restore: 'Restore',
  'take-over': 'Take over',
  schedule: 'Delete in 30 days',
  destroy: 'Destroy now',
};
const TITLES: Readonly<Record<Asked, string>> = {
  rotate: 'Make a new version?',
  disable: 'Disable this key?',
  enable: 'Enable this key?',
  restore: 'Take back the deletion?',
  'take-over': 'Give this key to another storage?',
  schedule: 'Delete this key in 30 days?',
  destroy: 'Destroy this key now?',
};

function explanationOf(asked: Asked, isHeld: boolean): string {
  switch (asked) {
    case 'rotate':
      return 'BunKMS mints a new version. The holder gets it within a second and re-seals in the background. Older versions stay.';
    case 'disable':
      return 'The key is withdrawn from its holder within a second: its project answers 403 until the key is enabled.';
    case 'enable':
      return 'The key may be used again.';
    case 'restore':
      return 'The key is kept. It is disabled until you enable it.';
    case 'take-over':
      return 'The storage that you name becomes the holder of the key. The present holder is refused from then on. BunKMS waits while a released key may be in use, unless you force it.';
    case 'schedule':
      return 'The key may not be used from now on, and is destroyed in 30 days. Until then it can be restored.';
    case 'destroy':
      return isHeld
        ? 'A project is sealed under this key. Without it every document of the project, in every backup, is noise. To end a project in order, shred it in Bundoc’s console.'
        : 'All versions are destroyed. What was encrypted under them is noise from then on.';
  }
}

/** What the token may do with the key as it is. */
function actionsOf({ state }: KeyDetail): readonly (readonly [Asked, string, boolean])[] {
  const all: (readonly [Asked, boolean, boolean])[] = [
    ['rotate', state === 'enabled' && may('kms:rotate_key'), false],
    ['enable', state === 'disabled' && may('kms:manage_key'), false],
    ['restore', state === 'pending_deletion' && may('kms:manage_key'), false],
    ['disable', state === 'enabled' && may('kms:manage_key'), false],
    ['take-over', state !== 'destroyed' && may('kms:manage_key'), true],
    ['schedule', (state === 'enabled' || state === 'disabled') && may('kms:destroy_key'), true],
    ['destroy', state !== 'destroyed' && may('kms:destroy_key'), true],
  ];
  return all
    .filter(([, isPossible]) => isPossible)
    .map(([action, , isGrave]) => [action, LABELS[action], isGrave]);
}

const STORAGE = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

function TakeOver({
  isBusy,
  onConfirm,
}: {
  readonly isBusy: boolean;
  readonly onConfirm: (storage: string, force: boolean) => void;
}) {
  const [storage, setStorage] = useState('');
  const [isForced, setIsForced] = useState(false);
  const isValid = STORAGE.test(storage.trim());
  return (
    <form
      class="confirm"
      onSubmit={(event) => {
        event.preventDefault();
        if (isValid && !isBusy) onConfirm(storage.trim(), isForced);
      }}
    >
      <TextField
        label="Id of the storage"
        hint="As /ready of its Bundoc says: storage_id."
        value={storage}
        onInput={setStorage}
      />
      <label class="check">
        <input
          type="checkbox"
          checked={isForced}
          onChange={(event) => setIsForced(event.currentTarget.checked)}
        />
        Do not wait for leases to end
      </label>
      <button type="submit" class="danger" disabled={!isValid || isBusy}>
        {isBusy ? 'Working…' : 'Take over'}
      </button>
    </form>
  );
}

function stateText({
  deletion_at: deletion,
  destroyed_at: destroyed,
  deletion_intended_at: intended,
}: KeyDetail) {
  if (destroyed !== undefined) return `since ${time(destroyed)} UTC`;
  if (deletion !== undefined) return `at ${time(deletion)} UTC, unless it is restored before`;
  if (intended !== undefined) return `its holder began to shred it at ${time(intended)} UTC`;
  return '';
}

function Receipt({ receipt }: { readonly receipt: DestroyReceipt }) {
  const place = `${receipt.audit.seq}:${receipt.audit.hash}`;
  return (
    <div class="panel">
      <h2>Destroyed. The receipt:</h2>
      <pre class="command receipt">
        <code>{place}</code>
      </pre>
      <div class="actions">
        <Copy text={place} label="Copy" />
        <button
          type="button"
          onClick={() => download(`destroyed-${receipt.name}.json`, `${JSON.stringify(receipt, null, 2)}\n`)}
        >
          Download
        </button>
      </div>
    </div>
  );
}

/** Who may hold the raw key, drawn over time. */
function Leases({ name }: { readonly name: string }) {
  const page = useRequest(name, (signal) =>
    getJson<LeasePage>(`${path('keys', name)}/leases`, { limit: 20 }, signal),
  );
  return (
    <>
      <h2>Leases</h2>
      <Fault error={page.error} retry={page.reload} />
      {page.data === undefined ? null : page.data.leases.length === 0 ? (
        <Empty title="Nobody has been given this key" />
      ) : (
        <Timeline leases={page.data.leases} />
      )}
    </>
  );
}

function Timeline({ leases }: { readonly leases: readonly KeyLease[] }) {
  const now = nowMs.value;
  const starts = leases.map(({ issued_at: at }) => Date.parse(at));
  const ends = leases.map(({ until }) => Date.parse(until));
  const from = Math.min(...starts, now);
  const width = Math.max(1, Math.max(...ends, now) - from);
  const share = (ms: number) => `${((ms - from) / width) * 100}%`;
  return (
    <Table label="Leases" heads={['Given to', 'From', ['Version', 'number'], 'Given (UTC)', 'Until', 'Time']}>
      {leases.map(({ id, subject, source, version, issued_at: at, until }) => {
        const end = Date.parse(until);
        const isLive = end > now;
        return (
          <tr key={id}>
            <th scope="row">
              <Name text={subject} max={40} />
            </th>
            <td>
              <code>{source}</code>
            </td>
            <td class="number">{version}</td>
            <td class="when">{time(at)}</td>
            <td>
              {isLive ? <Badge kind="good">{span(end - now)} left</Badge> : <span class="muted">over</span>}
            </td>
            <td class="bar-cell">
              <div class="bar" aria-hidden="true">
                <div
                  class={isLive ? 'bar-fill live' : 'bar-fill'}
                  style={{ left: share(Date.parse(at)), right: `calc(100% - ${share(end)})` }}
                />
                <div class="bar-now" style={{ left: share(now) }} />
              </div>
            </td>
          </tr>
        );
      })}
    </Table>
  );
}
