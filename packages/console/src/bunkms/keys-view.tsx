import type { KeyInfo, KeyPage } from '@bundoc/shared/contract/keys';
import { useState } from 'preact/hooks';
import { Badge, Empty, Head, Loaded, Name, Table } from '../parts/basics.tsx';
import { TextField } from '../parts/fields.tsx';
import { span, visible } from '../parts/format.ts';
import { Pager, usePages } from '../parts/pages.tsx';
import { useRequest } from '../parts/use-request.ts';
import { getJson } from '../shell/api.ts';
import { nowMs } from '../shell/session.ts';
import { cursorBefore } from './cursor-before.ts';
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
  const cursor = pages.cursor ?? cursorBefore(from);
  // Not polled: each request adds an INFO record to the audit chain.
  const page = useRequest(`${cursor}`, (signal) =>
    getJson<KeyPage>('/keys', { limit: PAGE, cursor }, signal),
  );
  return (
    <>
      <Head title="Keys" lead="Names, states and versions, without any key material, wrapped or not." />
      <div class="toolbar">
        <TextField
          label="Names from"
          hint="The list begins with this name, or the next one."
          isSearch
          pattern="[a-z0-9][a-z0-9._\-]{0,127}"
          value={from}
          onInput={(value, isValid) => {
            if (isValid) setFrom(value);
            pages.reset();
          }}
        />
      </div>
      <Loaded request={page} what="keys">
        {(data) => <Keys page={data} />}
      </Loaded>
      <Pager pages={pages} next={page.data?.next_cursor} onReload={page.reload} />
    </>
  );
}

function Keys({ page: { keys, damaged } }: { readonly page: KeyPage }) {
  return (
    <>
      {damaged === undefined ? null : (
        <p class="fault" role="alert">
          The records of these keys are damaged: {damaged.map((name) => visible(name)).join(', ')}. Restore
          them from a backup.
        </p>
      )}
      {keys.length === 0 ? (
        <Empty title="No keys">Writing the first document of a project creates its key.</Empty>
      ) : (
        <Table
          label="Keys"
          heads={['Key', 'State', ['Version', 'number'], 'Held by', 'Age', 'Rotation', 'Leaves BunKMS']}
        >
          {keys.map((key) => (
            <Row key={key.id} info={key} />
          ))}
        </Table>
      )}
    </>
  );
}

function Row({ info }: { readonly info: KeyInfo }) {
  const { name, state, version, holder, created_at: made, next_rotation_at: next, exportable } = info;
  return (
    <tr>
      <th scope="row">
        <a href={places.key(name)}>
          <Name text={name} max={60} />
        </a>
      </th>
      <td>
        <KeyState state={state} />
      </td>
      <td class="number">{version}</td>
      <td>
        <Holder holder={holder} />
      </td>
      <td>{span(nowMs.value - Date.parse(made))}</td>
      <td>
        {next === undefined ? (
          <span class="muted">by hand</span>
        ) : (
          `in ${span(Date.parse(next) - nowMs.value)}`
        )}
      </td>
      <td>{exportable ? 'to its holder' : 'never'}</td>
    </tr>
  );
}
