import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { type KmsEvent, kmsEventSchema } from '@bundoc/shared/contract/events';
import type { ChainHead } from '../records/chain.ts';
import { STORAGE_ACTIONS } from '../records/storage-record.ts';

/**
 * Actions that determine the holder of a key. Their events name the holder, so that it recognizes its own.
 */
const holders: ReadonlySet<string> = new Set(['key.accept', 'key.take_over', 'key.deletion_intent']);

/** The event of an audit record; undefined for other records and for actions that did not take place. */
export function eventOf(record: AuditRecord): KmsEvent | undefined {
  if (record.outcome !== 'allowed') return undefined;
  const { action: type, key: name, version, detail } = record;
  const candidate =
    type === 'token.revoke'
      ? { type, jti: detail?.['token'], family: detail?.['family'], expires_at: detail?.['expires_at'] }
      : STORAGE_ACTIONS.includes(type)
        ? { type: 'storage.take_over', storage: detail?.['storage'], generation: detail?.['generation'] }
        : { type, name, version, ...(holders.has(type) ? { holder: detail?.['holder'] } : {}) };
  return kmsEventSchema.safeParse(candidate).data;
}

/**
 * An event in its wire format. Its id is a place in the audit chain, in the form of a receipt: `seq:hash`.
 */
export function blockOf({ type, ...data }: KmsEvent, place?: ChainHead): string {
  const id = place === undefined ? '' : `id: ${place.seq}:${place.hash}\n`;
  return `${id}event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** The place that an id names; undefined for an invalid id. */
export function parsePlace(id: string | undefined): ChainHead | undefined {
  const [, seq, hash] = /^(\d{1,15}):([0-9a-f]{64})$/.exec(id ?? '') ?? [];
  return seq === undefined || hash === undefined ? undefined : { seq: Number(seq), hash };
}
