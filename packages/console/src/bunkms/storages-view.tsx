import type { KeyPage } from '@bundoc/shared/contract/keys';
import type { StorageInfo } from '@bundoc/shared/contract/storages';
import { Badge, Empty, Fault, Head, Loading, Table } from '../parts/basics.tsx';
import { count, time } from '../parts/format.ts';
import { useRequest } from '../parts/use-request.ts';
import { getJson, path } from '../shell/api.ts';
import { mayAsService } from '../shell/session.ts';

/** Keys that are looked at for their holders. */
const KEYS_MAX = 5_000;

interface Held {
  readonly id: string;
  readonly keys: number;
  readonly info: StorageInfo | undefined;
}

async function holders(signal: AbortSignal): Promise<{ held: readonly Held[]; isComplete: boolean }> {
  const keys = new Map<string, number>();
  let cursor: string | undefined;
  let looked = 0;
  do {
    const page: KeyPage = await getJson<KeyPage>('/keys', { limit: 500, cursor }, signal);
    for (const { holder } of page.keys)
      if (holder !== undefined) keys.set(holder, (keys.get(holder) ?? 0) + 1);
    looked += page.keys.length;
    cursor = page.next_cursor;
  } while (cursor !== undefined && looked < KEYS_MAX);
  const mayRead = mayAsService('kms:read_key');
  const held: Held[] = [];
  for (const [id, number] of keys)
    held.push({
      id,
      keys: number,
      info:
        mayRead && id !== 'unknown'
          ? await getJson<StorageInfo>(path('storages', id), {}, signal)
          : undefined,
    });
  return { held, isComplete: cursor === undefined };
}

/** Storages of Bundoc that hold keys. */
export function StoragesView() {
  const storages = useRequest('storages', holders);
  return (
    <>
      <Head
        title="Storages"
        lead="A data folder or a database of Bundoc that holds keys. One storage holds a key at a time."
      />
      <Fault error={storages.error} retry={storages.reload} />
      {storages.data === undefined ? (
        storages.error === undefined ? (
          <Loading what="storages" />
        ) : null
      ) : storages.data.held.length === 0 ? (
        <Empty title="No storage holds a key yet" />
      ) : (
        <Table
          label="Storages"
          heads={['Storage', ['Keys', 'number'], 'Generation', 'Confirmed (UTC)', 'Taken over']}
        >
          {storages.data.held.map(({ id, keys, info }) => (
            <tr key={id}>
              <th scope="row">
                <code class={id === 'unknown' ? 'bad' : ''}>{id}</code>
              </th>
              <td class="number">{count(keys)}</td>
              <td>
                <code>{info?.generation?.slice(0, 8) ?? '–'}</code>
              </td>
              <td class="when">{info === undefined ? '–' : time(info.advanced_at)}</td>
              <td>
                {info === undefined ? (
                  '–'
                ) : info.take_overs === 0 ? (
                  <span class="muted">never</span>
                ) : (
                  <Badge kind="warn">{count(info.take_overs)} times</Badge>
                )}
              </td>
            </tr>
          ))}
        </Table>
      )}
      {storages.data?.isComplete === false ? (
        <p class="note">The holders of the first {count(KEYS_MAX)} keys alone are shown.</p>
      ) : null}
      {mayAsService('kms:read_key') ? null : (
        <p class="hint">Generations are shown to service tokens with kms:read_key.</p>
      )}
    </>
  );
}
