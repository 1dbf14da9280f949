import type { KekStatus, UnfetchedPage } from '@bundoc/shared/contract/kek';
import { useState } from 'preact/hooks';
import { Badge, Dialog, Empty, Fault, Figure, Head, Loading, Name, Table } from '../parts/basics.tsx';
import { count, plural, time } from '../parts/format.ts';
import { useAction } from '../parts/use-action.ts';
import { useRequest } from '../parts/use-request.ts';
import { api, getJson, path } from '../shell/api.ts';

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
  const [isAsked, setIsAsked] = useState(false);
  const { isBusy, error, run, clear } = useAction();
  const [retiring, setRetiring] = useState<string>();
  const send = async (target: string, body: object) => {
    await run(async () => {
      await api.send({ method: 'POST', path: target, body: JSON.stringify(body), isIdempotent: false });
      setIsAsked(false);
      setRetiring(undefined);
    });
    keks.reload();
  };
  const status = keks.data;
  const staged = status?.keks.find(({ state }) => state === 'staged');
  const rotation = status?.rotation;
  return (
    <>
      <Head
        title="KEK"
        lead="Keys are wrapped with the current key encryption key. A KEK never leaves the ring."
        actions={
          <button
            type="button"
            class="primary"
            disabled={staged === undefined}
            onClick={() => {
              clear();
              setIsAsked(true);
            }}
          >
            Rotate
          </button>
        }
      />
      <Fault error={keks.error} retry={keks.reload} />
      {status === undefined ? (
        keks.error === undefined ? (
          <Loading what="the KEKs" />
        ) : null
      ) : (
        <>
          {rotation === undefined ? null : (
            <div class="panel">
              <h2>{rotation.completed_at === undefined ? 'Rotation in progress' : 'Last rotation'}</h2>
              <progress
                max={Math.max(1, rotation.total)}
                value={rotation.done}
                aria-label="Wrapped versions"
              />
              <dl class="figures">
                <Figure name="Wrapped">
                  {count(rotation.done)} of {count(rotation.total)}
                </Figure>
                <Figure name="Begun (UTC)">{time(rotation.started_at)}</Figure>
                {rotation.completed_at === undefined ? null : (
                  <Figure name="Finished (UTC)">{time(rotation.completed_at)}</Figure>
                )}
              </dl>
            </div>
          )}
          <Table
            label="KEKs"
            heads={['Id', 'State', 'Since (UTC)', 'In the ring', ['Versions', 'number'], 'End it']}
          >
            {status.keks.map(({ id, state, since, in_ring: inRing, versions, secrets }) => (
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
                <td>
                  {state === 'previous' ? (
                    <button
                      type="button"
                      class="small"
                      onClick={() => {
                        clear();
                        setRetiring(id);
                      }}
                    >
                      Retire
                    </button>
                  ) : null}
                </td>
              </tr>
            ))}
          </Table>
          {staged === undefined ? (
            <p class="hint">
              To rotate, add a KEK to the ring file (<code>bunkms kek</code> helps). BunKMS reloads the file
              automatically, and the new KEK appears here as staged.
            </p>
          ) : null}
        </>
      )}
      {isAsked && staged !== undefined ? (
        <Dialog title="Rotate the KEK?" onClose={() => setIsAsked(false)}>
          <p>
            <code>{staged.id}</code> becomes the current one. Every version of every key is wrapped with it in
            the background, while BunKMS serves. Keep the former one for as long as the oldest backup that you
            may open.
          </p>
          <Fault error={error} />
          <div class="dialog-end">
            <button type="button" onClick={() => setIsAsked(false)}>
              Cancel
            </button>
            <button
              type="button"
              class="primary"
              disabled={isBusy}
              onClick={() => void send('/kek/rotate', { kek_id: staged.id })}
            >
              Rotate
            </button>
          </div>
        </Dialog>
      ) : null}
      {retiring === undefined ? null : (
        <Dialog title="Retire this KEK?" onClose={() => setRetiring(undefined)}>
          <p>
            Nothing will be wrapped with <code>{retiring}</code> again. After that, it can be destroyed.
          </p>
          <Unfetched id={retiring} />
          <Fault error={error} />
          <div class="dialog-end">
            <button type="button" onClick={() => setRetiring(undefined)}>
              Keep it
            </button>
            <button
              type="button"
              class="danger"
              disabled={isBusy}
              onClick={() => void send('/kek/retire', { kek_id: retiring })}
            >
              Retire
            </button>
          </div>
        </Dialog>
      )}
    </>
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
