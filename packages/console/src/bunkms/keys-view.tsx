import type { KeyInfo, KeyPage } from '@bundoc/shared/contract/keys';
import { useState } from 'preact/hooks';
import { Badge, Empty, Fault, Field, Head, Loading, Name, Table } from '../parts/basics.tsx';
import { span, visible } from '../parts/format.ts';
import { Pager, usePages } from '../parts/pages.tsx';
import { useRequest } from '../parts/use-request.ts';
import { getJson } from '../shell/api.ts';
import { nowMs } from '../shell/session.ts';
import { places } from './places.ts';

const PAGE = 100;

const KEY_STATES: Readonly<Record<KeyInfo['state'], readonly [string, 'good' | 'warn' | 'bad' | 'plain']>> = {
  enabled: ['enabled', 'good'],
  disabled: ['disabled', 'warn'],
  pending_deletion: ['to be deleted', 'bad'],
  destroyed: ['destroyed', 'plain'],
};

export function KeyState({ state }: { readonly state: KeyInfo['state'] }) {
  const [name, kind] = KEY_STATES[state];
  return <Badge kind={kind}>{name}</Badge>;
}

/** Shows the beginning of a storage id, which is enough to distinguish storages. */
export function Holder({ holder }: { readonly holder: string | undefined }) {
  if (holder === undefined) return <span class="muted">nobody</span>;
  return (
    <code title={holder} class={holder === 'unknown' ? 'bad' : ''}>
      {holder.slice(0, 8)}
    </code>
  );
}

/** Keys by name. The list adds no CRITICAL record. */
export function KeysView() {
  const [from, setFrom] = useState('');
  const pages = usePages();
  const cursor = pages.cursor ?? (from === '' ? undefined : from);
  // Not polled: each request adds an INFO record to the audit chain.
  const page = useRequest(`${cursor}`, (signal) =>
    getJson<KeyPage>('/keys', { limit: PAGE, cursor }, signal),
  );
  return (
    <>
      <Head title="Keys" lead="Names, states and versions, without any key material, wrapped or not." />
      <div class="toolbar">
        <Field label="Behind the name">
          {(attributes) => (
            <input
              {...attributes}
              type="search"
              class="mono"
              autocomplete="off"
              spellcheck={false}
              pattern="[a-z0-9][a-z0-9._\-]*"
              value={from}
              onInput={(event) => {
                const { value, validity } = event.currentTarget;
                if (validity.valid) setFrom(value);
                pages.reset();
              }}
            />
          )}
        </Field>
      </div>
      <Fault error={page.error} retry={page.reload} />
      {page.data?.damaged === undefined ? null : (
        <p class="fault" role="alert">
          The records of these keys are damaged: {page.data.damaged.map((name) => visible(name)).join(', ')}.
          Restore them from a backup.
        </p>
      )}
      {page.data === undefined ? (
        page.error === undefined ? (
          <Loading what="keys" />
        ) : null
      ) : page.data.keys.length === 0 ? (
        <Empty title="No keys">Writing the first document of a project creates its key.</Empty>
      ) : (
        <Table
          label="Keys"
          heads={['Key', 'State', ['Version', 'number'], 'Held by', 'Age', 'Rotation', 'Leaves BunKMS']}
        >
          {page.data.keys.map((key) => (
            <tr key={key.id}>
              <th scope="row">
                <a href={places.key(key.name)}>
                  <Name text={key.name} max={60} />
                </a>
              </th>
              <td>
                <KeyState state={key.state} />
              </td>
              <td class="number">{key.version}</td>
              <td>
                <Holder holder={key.holder} />
              </td>
              <td>{span(nowMs.value - Date.parse(key.created_at))}</td>
              <td>
                {key.next_rotation_at === undefined ? (
                  <span class="muted">by hand</span>
                ) : (
                  `in ${span(Date.parse(key.next_rotation_at) - nowMs.value)}`
                )}
              </td>
              <td>{key.exportable ? 'to its holder' : 'never'}</td>
            </tr>
          ))}
        </Table>
      )}
      <Pager pages={pages} next={page.data?.next_cursor} onReload={page.reload} />
    </>
  );
}
