import type { KekStatus, UnfetchedPage } from '@bundoc/shared/contract/kek';
import { useState } from 'preact/hooks';
import { Badge, Empty, Fault, Figure, Head, Loaded, Loading, Name, Table } from '../parts/basics.tsx';
import { Confirmation } from '../parts/dialogs.tsx';
import { count, plural, time } from '../parts/format.ts';
import { useAction } from '../parts/use-action.ts';
import { useRequest } from '../parts/use-request.ts';
import { api, getJson, path } from '../shell/api.ts';
import { mayAsService } from '../shell/session.ts';

const EVERY_MS = 3_000;
const STATES: Readonly<Record<string, 'good' | 'warn' | 'bad' | 'plain' | 'accent'>> = {
  current: 'accent',
  staged: 'good',
  previous: 'plain',
  retired: 'plain',
  unknown: 'bad',
};

/** The key encryption keys and the progress of a rotation. No view accepts or shows a KEK. */
export function KekView() {
  const keks = useRequest('kek', (signal) => getJson<KekStatus>('/kek', {}, signal), EVERY_MS);
  const { isBusy, error, run, clear } = useAction();
  const [asked, setAsked] = useState<'rotate' | { readonly retire: string }>();
  const ask = (what: typeof asked) => {
    clear();
    setAsked(what);
  };
  const send = async (target: string, id: string) => {
    const body = JSON.stringify({ kek_id: id });
    await run(async () => {
      await api.send({ method: 'POST', path: target, body, isIdempotent: false });
      setAsked(undefined);
    });
    keks.reload();
  };
  const staged = keks.data?.keks.find(({ state }) => state === 'staged');
  const dialog = { isBusy, error, onClose: () => setAsked(undefined) };
  return (
    <>
      <Head
        title="KEK"
        lead="Keys are wrapped with the current key encryption key. A KEK never leaves the ring."
        actions={
          mayAsService('kms:manage_kek') ? (
            <button
              type="button"
              class="primary"
              disabled={staged === undefined}
              onClick={() => ask('rotate')}
            >
              Rotate
            </button>
          ) : null
        }
      />
      <Loaded request={keks} what="the KEKs">
        {(status) => <Status status={status} onRetire={(id) => ask({ retire: id })} />}
      </Loaded>
      {asked === 'rotate' && staged !== undefined ? (
        <Confirmation
          {...dialog}
          title="Rotate the KEK?"
          confirm="Rotate"
          isGrave={false}
          onConfirm={() => void send('/kek/rotate', staged.id)}
        >
          <p>
            <code>{staged.id}</code> becomes the current one. Every version of every key is wrapped with it in
            the background, while BunKMS serves. Keep the former one for as long as the oldest backup that you
            may open.
          </p>
        </Confirmation>
      ) : null}
      {typeof asked === 'object' ? (
        <Confirmation
          {...dialog}
          title="Retire this KEK?"
          cancel="Keep it"
          confirm="Retire"
          onConfirm={() => void send('/kek/retire', asked.retire)}
        >
          <p>
            Nothing will be wrapped with <code>{asked.retire}</code> again. After that, it can be destroyed.
          </p>
          <Unfetched id={asked.retire} />
        </Confirmation>
      ) : null}
    </>
  );
}

function Status({
  status: { keks, rotation },
  onRetire,
}: {
  readonly status: KekStatus;
  readonly onRetire: (id: string) => void;
}) {
  return (
    <>
      {rotation === undefined ? null : <Rotation rotation={rotation} />}
      <Table
        label="KEKs"
        heads={['Id', 'State', 'Since (UTC)', 'In the ring', ['Versions', 'number'], 'Action']}
      >
        {keks.map(({ id, state, since, in_ring: inRing, versions, secrets }) => (
          <tr key={id}>
            <th scope="row">
              <code>{id}</code>
            </th>
            <td>
              <Badge kind={STATES[state] ?? 'plain'}>{state}</Badge>
            </td>
            <td class="when">{since === undefined ? '–' : time(since)}</td>
            <td>{inRing ? 'yes' : <Badge kind={versions + secrets > 0 ? 'bad' : 'plain'}>no</Badge>}</td>
            <td class="number">{count(versions)}</td>
            <td class="action">
              {state === 'previous' && mayAsService('kms:manage_kek') ? (
                <button type="button" class="small" onClick={() => onRetire(id)}>
                  Retire
                </button>
              ) : null}
            </td>
          </tr>
        ))}
      </Table>
      {keks.some(({ state }) => state === 'staged') ? null : (
        <p class="hint">
          To rotate, make a KEK with <code>openssl rand -base64 32</code>, and keep a copy of it elsewhere.
          Add it as a line to the file of <code>BUNKMS_KEK_FILE</code>. Within seconds it appears here as
          staged.
        </p>
      )}
    </>
  );
}

function Rotation({ rotation }: { readonly rotation: NonNullable<KekStatus['rotation']> }) {
  const { done, total, started_at: started, completed_at: completed } = rotation;
  return (
    <div class="panel">
      <h2>{completed === undefined ? 'Rotation in progress' : 'Last rotation'}</h2>
      <progress max={Math.max(1, total)} value={done} aria-label="Wrapped versions" />
      <dl class="figures">
        <Figure name="Wrapped">
          {count(done)} of {count(total)}
        </Figure>
        <Figure name="Begun (UTC)">
          <span class="when">{time(started)}</span>
        </Figure>
        {completed === undefined ? null : (
          <Figure name="Finished (UTC)">
            <span class="when">{time(completed)}</span>
          </Figure>
        )}
      </dl>
    </div>
  );
}

/** Keys whose holders may have copies only under this KEK. */
function Unfetched({ id }: { readonly id: string }) {
  const page = useRequest(id, (signal) =>
    getJson<UnfetchedPage>(`${path('kek', id)}/unfetched`, { limit: 100 }, signal),
  );
  if (page.error !== undefined) return <Fault error={page.error} />;
  if (page.data === undefined) return <Loading what="keys that were not fetched" />;
  const { keys } = page.data;
  if (keys.length === 0) return <Empty title="All holders have fetched their keys since" />;
  return (
    <div class="note warn">
      <p>
        {plural(keys.length, 'key')}
        {page.data.next_cursor === undefined ? '' : ' and more'} may exist at holders only under this KEK:
      </p>
      <p>
        {keys.slice(0, 20).map((name) => (
          <span key={name}>
            <Name text={name} max={40} />{' '}
          </span>
        ))}
      </p>
    </div>
  );
}
