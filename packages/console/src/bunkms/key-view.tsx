import { hasCode } from '@bundoc/client/error';
import type { DestroyReceipt, KeyDetail, KeyLease, LeasePage } from '@bundoc/shared/contract/keys';
import { useState } from 'preact/hooks';
import { Badge, Copy, Empty, Fault, Figure, Head, Loading, Name, Table } from '../parts/basics.tsx';
import { download } from '../parts/download.ts';
import { span, time } from '../parts/format.ts';
import { useAction } from '../parts/use-action.ts';
import { useRequest } from '../parts/use-request.ts';
import { api, getJson, path } from '../shell/api.ts';
import { Crumbs } from '../shell/crumbs.tsx';
import { nowMs } from '../shell/session.ts';
import { ActionDialog, type Asked, actionsOf, type Call } from './key-actions.tsx';
import { Holder, KeyState } from './keys-view.tsx';
import { places } from './places.ts';

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
      <Shown key={name} name={name} />
    </>
  );
}

interface Key {
  readonly detail: KeyDetail;
  readonly etag: string | undefined;
}

async function readKey(name: string, signal: AbortSignal): Promise<Key> {
  const { text, headers } = await api.send({
    method: 'GET',
    path: path('keys', name),
    signal,
    isIdempotent: true,
  });
  return { detail: JSON.parse(text) as KeyDetail, etag: headers.get('etag') ?? undefined };
}

function Shown({ name }: { readonly name: string }) {
  const key = useRequest(name, (signal) => readKey(name, signal));
  const [asked, setAsked] = useState<Asked>();
  const { isBusy, error, run, clear } = useAction();
  const [receipt, setReceipt] = useState<DestroyReceipt>();
  if (key.data === undefined)
    return key.error === undefined ? (
      <Loading what="the key" />
    ) : (
      <>
        <Head title={<Name text={name} />} />
        {hasCode(key.error, 'key_destroyed') ? (
          <Empty title="This key is destroyed">
            What was sealed under it cannot be decrypted. The <a href={places.audit()}>audit view</a> has the
            record.
          </Empty>
        ) : (
          <Fault error={key.error} retry={key.reload} />
        )}
      </>
    );
  const { detail, etag } = key.data;
  const act = async (call: Call) => {
    await run(async () => {
      const headers = { 'if-match': etag };
      const { text, status } = await api.send({ ...call, headers, isIdempotent: false });
      if (status === 200 && call.query?.['pending_days'] === '0')
        setReceipt(JSON.parse(text) as DestroyReceipt);
      setAsked(undefined);
    });
    key.reload();
  };
  // A destroyed key cannot be read again.
  if (receipt !== undefined)
    return (
      <>
        <Head title={<Name text={name} />} lead={<KeyState state="destroyed" />} />
        <Receipt receipt={receipt} />
      </>
    );
  return (
    <>
      <Head
        title={<Name text={name} />}
        lead={
          <>
            <KeyState state={detail.state} /> {stateText(detail)}
          </>
        }
        actions={actionsOf(detail).map(([action, label, isGrave]) => (
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
      <Figures detail={detail} />
      <Versions detail={detail} />
      <Leases name={name} />
      {asked === undefined ? null : (
        <ActionDialog
          detail={detail}
          asked={asked}
          isBusy={isBusy}
          error={error}
          onAct={(call) => void act(call)}
          onClose={() => setAsked(undefined)}
        />
      )}
    </>
  );
}

function Figures({ detail }: { readonly detail: KeyDetail }) {
  const { version, holder, created_at: made, next_rotation_at: next, exportable, kcv } = detail;
  return (
    <>
      <dl class="figures">
        <Figure name="Version">{version}</Figure>
        <Figure name="Held by">
          <Holder holder={holder} />
        </Figure>
        <Figure name="Age">{span(nowMs.value - Date.parse(made))}</Figure>
        <Figure name="Next rotation">
          {next === undefined ? 'by hand' : `in ${span(Date.parse(next) - nowMs.value)}`}
        </Figure>
        <Figure name="Leaves BunKMS">{exportable ? 'to its holder' : 'never'}</Figure>
        <Figure name="Check value">
          <code>{kcv.slice(0, 8)}</code>
        </Figure>
      </dl>
      <Outside detail={detail} />
    </>
  );
}

/** The outside key of a customer, and whether it could be used. */
function Outside({ detail }: { readonly detail: KeyDetail }) {
  const { outside, outside_state: state } = detail;
  if (state === undefined) return null;
  const { other_versions: others, last_success_at: success, last_error: error, kek_ids: kekIds } = state;
  const isRefused = error !== undefined && (success === undefined || error.at > success);
  return (
    <>
      <h2>Outside key</h2>
      <dl class="figures">
        <Figure name="Needs as well">
          {outside === undefined ? 'nothing' : <Name text={outside.key} />}
        </Figure>
        <Figure name="Lease">{outside === undefined ? 'as usual' : span(outside.lease_ttl_s * 1_000)}</Figure>
        <Figure name="Last success (UTC)">{success === undefined ? 'never' : time(success)}</Figure>
        <Figure name="Last error (UTC)">
          {error === undefined ? (
            'none'
          ) : (
            <>
              <Badge kind={isRefused ? 'bad' : 'plain'}>{error.code}</Badge> {time(error.at)}
            </>
          )}
        </Figure>
        <Figure name="Versions protected otherwise">
          {others.length === 0 ? 'none' : others.join(', ')}
        </Figure>
        <Figure name="KEKs that open older copies">
          {kekIds.map((id) => (
            <code key={id}>{id} </code>
          ))}
        </Figure>
      </dl>
    </>
  );
}

function Versions({ detail }: { readonly detail: KeyDetail }) {
  const hasOutside = detail.outside_state !== undefined;
  return (
    <>
      <h2>Versions</h2>
      <Table
        label="Versions"
        heads={['Version', 'State', 'Made (UTC)', 'Check value', ...(hasOutside ? ['Opens with'] : [])]}
      >
        {[...detail.versions]
          .reverse()
          .map(({ version, state, created_at: made, destroyed_at: gone, kcv, outside }) => (
            <tr key={version}>
              <th scope="row">{version}</th>
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
              {hasOutside ? (
                <td>
                  {state === 'destroyed'
                    ? 'nothing'
                    : outside === undefined
                      ? 'the KEK'
                      : `the KEK and ${outside}`}
                </td>
              ) : null}
            </tr>
          ))}
      </Table>
    </>
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
      <h2>Receipt</h2>
      <pre class="command receipt">
        <code>{place}</code>
      </pre>
      <div class="actions">
        <Copy text={place} label="Copy" />
        <button
          type="button"
          class="small"
          onClick={() => download(`destroyed-${receipt.name}.json`, `${JSON.stringify(receipt, null, 2)}\n`)}
        >
          Download
        </button>
      </div>
      <p>The key is destroyed. Keep the receipt: the audit chain must always contain its record.</p>
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
      {leases.map(({ id, subject, source, version, issued_at: at, until, kept_by: keeper }) => {
        const end = Date.parse(until);
        const isLive = end > now;
        return (
          <tr key={`${id} ${version}`}>
            <th scope="row">
              <Name text={subject} max={40} />
              {keeper === undefined ? null : <Badge>kept by BunKMS</Badge>}
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
