import { hasCode } from '@bundoc/client/error';
import type { KeyPage } from '@bundoc/shared/contract/keys';
import type { StorageInfo } from '@bundoc/shared/contract/storages';
import { useState } from 'preact/hooks';
import { Badge, Empty, Head, Loaded, Table } from '../parts/basics.tsx';
import { Confirmation } from '../parts/dialogs.tsx';
import { Check } from '../parts/fields.tsx';
import { count, time } from '../parts/format.ts';
import { useAction } from '../parts/use-action.ts';
import { useRequest } from '../parts/use-request.ts';
import { api, getJson, path } from '../shell/api.ts';
import { may, mayAsService } from '../shell/session.ts';

/** Maximum keys to read for their holders. */
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
      info: mayRead && id !== 'unknown' ? await infoOf(id, signal) : undefined,
    });
  return { held, isComplete: cursor === undefined };
}

/** Undefined for a storage that has not started since it became a holder. */
async function infoOf(id: string, signal: AbortSignal): Promise<StorageInfo | undefined> {
  try {
    return await getJson<StorageInfo>(path('storages', id), {}, signal);
  } catch (error) {
    if (hasCode(error, 'storage_not_found')) return undefined;
    throw error;
  }
}

/** Storages of Bundoc that hold keys. */
export function StoragesView() {
  const storages = useRequest('storages', holders);
  const [takenOver, setTakenOver] = useState<string>();
  return (
    <>
      <Head
        title="Storages"
        lead="Data folders and databases of Bundoc that hold keys. One storage holds a key at a time."
      />
      <Loaded request={storages} what="storages">
        {({ held }) =>
          held.length === 0 ? (
            <Empty title="No storage holds a key yet" />
          ) : (
            <Storages held={held} onTakeOver={setTakenOver} />
          )
        }
      </Loaded>
      {storages.data?.isComplete === false ? (
        <p class="note">Only the holders of the first {count(KEYS_MAX)} keys are shown.</p>
      ) : null}
      {mayAsService('kms:read_key') ? null : (
        <p class="hint">Only service tokens with kms:read_key can see generations.</p>
      )}
      {takenOver === undefined ? null : (
        <TakeOver
          id={takenOver}
          onEnd={() => {
            setTakenOver(undefined);
            storages.reload();
          }}
        />
      )}
    </>
  );
}

function Storages({
  held,
  onTakeOver,
}: {
  readonly held: readonly Held[];
  readonly onTakeOver: (id: string) => void;
}) {
  const mayManage = may('kms:manage_key');
  return (
    <Table
      label="Storages"
      heads={[
        ...['Storage', ['Keys', 'number'] as const, 'Generation', 'Confirmed (UTC)', 'Taken over'],
        ...(mayManage ? ['Action'] : []),
      ]}
    >
      {held.map(({ id, keys, info }) => (
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
            ) : info.taken_over_ms === 0 ? (
              <span class="muted">never</span>
            ) : (
              <Badge kind="warn">{time(new Date(info.taken_over_ms).toISOString())}</Badge>
            )}
          </td>
          {mayManage ? (
            <td class="action">
              {id === 'unknown' ? null : (
                <button
                  type="button"
                  class="small"
                  aria-label={`Let a copy take over ${id.slice(0, 8)}`}
                  onClick={() => onTakeOver(id)}
                >
                  Let a copy take over
                </button>
              )}
            </td>
          ) : null}
        </tr>
      ))}
    </Table>
  );
}

/** Lets another copy of a storage replace it, for example a restored one. */
function TakeOver({ id, onEnd }: { readonly id: string; readonly onEnd: () => void }) {
  const [isForced, setIsForced] = useState(false);
  const { isBusy, error, run } = useAction();
  const takeOver = () =>
    run(async () => {
      await api.send({
        method: 'POST',
        path: `${path('storages', id)}/take-over`,
        body: JSON.stringify({ force: isForced }),
        isIdempotent: false,
      });
      onEnd();
    });
  return (
    <Confirmation
      title="Let a copy replace this storage?"
      confirm={isBusy ? 'Working…' : 'Take over'}
      isBusy={isBusy}
      error={error}
      onConfirm={() => void takeOver()}
      onClose={onEnd}
    >
      <p>
        The copy of <code>{id}</code> whose Bundoc starts next replaces it. The present one is then refused.
        Do this after a restore, when the original is lost.
      </p>
      <Check isChecked={isForced} onChange={setIsForced}>
        Do not wait for leases to end
      </Check>
    </Confirmation>
  );
}
