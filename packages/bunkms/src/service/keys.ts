import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import { KEY_BYTES, keyCheckValue } from '@bundoc/shared/aead';
import type { Clock } from '@bundoc/shared/clock';
import type { CreateKey, KeyDetail, KeyInfo, KeyPage } from '@bundoc/shared/contract/keys';
import { AppError } from '@bundoc/shared/errors';
import type { Caller } from '../audit/caller.ts';
import type { AuditLog } from '../audit/log.ts';
import type { KmsStore, PageQuery } from '../store/port.ts';
import type { Vault } from '../vault/vault.ts';

/** What the operations on keys stand on. */
export interface KeyPorts {
  readonly store: KmsStore;
  readonly vault: Vault;
  readonly audit: AuditLog;
  readonly clock: Clock;
}

/**
 * Mints a DEK and stores it wrapped, together with its audit record.
 *
 * @throws AppError `KEY_EXISTS`, also when the stored key of that name is damaged: it is never replaced.
 */
export async function createKey(
  { store, vault, clock }: KeyPorts,
  { name, type }: CreateKey,
  caller: Caller,
): Promise<KeyInfo> {
  const dek = randomBytes(KEY_BYTES);
  try {
    const time = new Date(clock.now()).toISOString();
    const info: KeyInfo = {
      id: randomUUID(),
      name,
      type,
      state: 'enabled',
      version: 1,
      kcv: keyCheckValue(createSecretKey(dek)),
      created_at: time,
    };
    const wrapped = vault.wrapDek(dek, { keyId: info.id, name, version: info.version });
    await store.insertKey(
      { info, wrapped },
      {
        ...caller,
        time,
        severity: 'INFO',
        action: 'key.create',
        outcome: 'allowed',
        key: name,
        version: info.version,
        detail: { key_id: info.id, kcv: info.kcv },
      },
    );
    return info;
  } finally {
    dek.fill(0);
  }
}

/** The key and its versions. @throws AppError `KEY_NOT_FOUND`. */
export async function readKey(
  { store, audit, clock }: KeyPorts,
  name: string,
  caller: Caller,
): Promise<KeyDetail> {
  const key = await store.describeKey(name);
  if (key === undefined) throw new AppError('KEY_NOT_FOUND');
  audit.appendDetached({
    ...caller,
    time: new Date(clock.now()).toISOString(),
    severity: 'INFO',
    action: 'key.read',
    outcome: 'allowed',
    key: name,
    version: key.version,
  });
  return key;
}

/** The keys that `globs` match, by name; `next_cursor` is the name to go on behind. */
export async function listKeys(
  { store, audit, clock }: KeyPorts,
  globs: readonly string[],
  page: PageQuery<string>,
  caller: Caller,
): Promise<KeyPage> {
  const { items, more } = await store.listKeys(globs, page);
  audit.appendDetached({
    ...caller,
    time: new Date(clock.now()).toISOString(),
    severity: 'INFO',
    action: 'key.list',
    outcome: 'allowed',
    detail: { count: items.length },
  });
  const last = items.at(-1);
  return { keys: [...items], ...(more && last !== undefined ? { next_cursor: last.name } : {}) };
}
