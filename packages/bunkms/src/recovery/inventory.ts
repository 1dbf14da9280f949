import { createHmac, type KeyObject, randomBytes, timingSafeEqual } from 'node:crypto';
import { auditReceiptSchema } from '@bundoc/shared/contract/keys';
import { type TokenInfo, tokenInfoSchema } from '@bundoc/shared/contract/tokens';
import { KEY_BYTES, takeKey } from '@bundoc/shared/crypto/aead';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { Logger } from '@bundoc/shared/runtime/logger';
import { z } from 'zod';
import { authenticate } from '../keys/stored-key.ts';
import type { Caller } from '../records/caller.ts';
import type { NamedKey } from '../records/key-record.ts';
import { authenticToken } from '../records/token-record.ts';
import type { AuditStore } from '../store/audit.ts';
import type { KeyStore } from '../store/keys.ts';
import type { TokenStore } from '../store/tokens.ts';
import type { Unsealed } from '../vault/unseal.ts';
import type { Vault } from '../vault/vault.ts';
import { unwrapOwnKey } from './archive.ts';
import { DamagedFile } from './errors.ts';
import { afterChange, type KeySnapshot, keySnapshotSchema, snapshotOf } from './key-snapshot.ts';

const FORMAT = 'bunkms/key-inventory/v2';

const inventorySchema = z.strictObject({
  created_at: z.iso.datetime(),
  /** The `kid` of the signing key. */
  kid: z.string(),
  /** The last audit record before the inventory began. The inventory covers everything up to it. */
  audit: auditReceiptSchema,
  keys: z.array(keySnapshotSchema),
  /** Names of keys with an unknown state. */
  damaged: z.array(z.string()),
  /** Unexpired tokens, including revoked ones. */
  tokens: z.array(z.strictObject(tokenInfoSchema.shape)),
});
export type Inventory = z.infer<typeof inventorySchema>;

const fileSchema = z.strictObject({
  format: z.literal(FORMAT),
  key_wrapped: z.base64(),
  mac: z.string().regex(/^[0-9a-f]{64}$/),
  inventory: z.unknown(),
});

export interface InventoryDeps {
  readonly store: KeyStore & TokenStore & AuditStore;
  readonly state: Unsealed;
  readonly clock: Clock;
  readonly logger: Logger;
}

const PAGE = 500;

/**
 * Takes an inventory: the state of every key and token of a store, at the record that it names or later.
 * Concurrent changes may or may not be included. Its creation is recorded.
 */
export async function takeInventory(
  { store, state, clock, logger }: InventoryDeps,
  caller: Caller,
  onProgress: (keys: number) => void = () => undefined,
): Promise<Inventory> {
  const created_at = new Date(clock.now()).toISOString();
  const action = {
    time: created_at,
    severity: 'INFO',
    action: 'store.inventory',
    outcome: 'allowed',
  } as const;
  await store.appendAudit([{ ...caller, ...action }]);
  const audit = await store.auditHead();
  const keys: KeySnapshot[] = [];
  const damaged: string[] = [];
  for (let after: string | undefined, more = true; more; ) {
    const page = await store.listKeys(['*'], { after, limit: PAGE });
    for (const item of page.items) {
      const snapshot = await snapshotIn({ store, chainKey: state.chainKey, logger }, item);
      if (snapshot === undefined) damaged.push(item.name);
      else keys.push(snapshot);
    }
    onProgress(keys.length + damaged.length);
    after = page.items.at(-1)?.name;
    more = page.more;
  }
  return {
    created_at,
    kid: state.publicKey.kid,
    audit,
    keys,
    damaged,
    tokens: await liveTokens(store, state.chainKey, created_at),
  };
}

interface SnapshotDeps {
  readonly store: KeyStore & AuditStore;
  readonly chainKey: KeyObject;
  readonly logger: Logger;
}

async function snapshotIn(deps: SnapshotDeps, item: NamedKey): Promise<KeySnapshot | undefined> {
  // The only version of a key cannot be destroyed alone, so it need not be checked.
  const stored = item.record?.version === 1 ? item : await deps.store.findKey(item.name, 'all');
  const key = stored && authenticate(deps, item.name, stored);
  if (key === undefined) return undefined;
  const snapshot = snapshotOf(key.record, key.versions);
  if (key.versions.length === key.record.version) return snapshot;
  // For a version whose record is lost, the chain says whether it was destroyed.
  const { destroyed_versions } = (await historyIn(deps, item.name)) ?? snapshot;
  return { ...snapshot, destroyed_versions };
}

async function historyIn({ store }: SnapshotDeps, key: string): Promise<KeySnapshot | undefined> {
  let snapshot: KeySnapshot | undefined;
  for (let after: number | undefined, more = true; more; ) {
    const page = await store.listAudit({ key, uses: false, after, limit: PAGE });
    snapshot = page.items.reduce(afterChange, snapshot);
    after = page.items.at(-1)?.seq;
    more = page.more;
  }
  return snapshot;
}

/** The unexpired tokens, authenticated by the audit chain; damaged rows are left out. */
async function liveTokens(store: TokenStore, chainKey: KeyObject, now: string): Promise<TokenInfo[]> {
  const tokens: TokenInfo[] = [];
  for (let after: string | undefined, more = true; more; ) {
    const page = await store.listTokens({ after, limit: PAGE });
    const known = page.items.flatMap((item) => authenticToken(chainKey, item) ?? []);
    tokens.push(...known.filter(({ expires_at }) => expires_at > now));
    after = page.items.at(-1)?.jti;
    more = page.more;
  }
  return tokens;
}

/**
 * The inventory as a file, authenticated under the KEK (docs/formats/key-inventory.md). It contains no key.
 */
export function formatInventory(vault: Vault, inventory: Inventory): Buffer {
  const rawKey = randomBytes(KEY_BYTES);
  const key_wrapped = vault.wrapSecret(rawKey, 'inventory-key').toString('base64');
  const text = JSON.stringify(inventory);
  const mac = macOf(takeKey(rawKey), text).toString('hex');
  const head = JSON.stringify({ format: FORMAT, key_wrapped, mac });
  return Buffer.from(`${head.slice(0, -1)},"inventory":${text}}\n`, 'utf8');
}

/** @throws DamagedFile for anything but an unchanged inventory, except for white space; MissingKek. */
export function parseInventory(vault: Vault, content: Buffer): Inventory {
  const file = fileSchema.safeParse(parsed(content));
  if (!file.success) throw new DamagedFile('it is not an inventory of a known format', { cause: file.error });
  const { key_wrapped, mac, inventory } = file.data;
  const key = unwrapOwnKey(vault, Buffer.from(key_wrapped, 'base64'), 'inventory-key', 'the inventory');
  if (!timingSafeEqual(macOf(key, JSON.stringify(inventory)), Buffer.from(mac, 'hex')))
    throw new DamagedFile('the inventory was changed');
  const result = inventorySchema.safeParse(inventory);
  if (!result.success)
    throw new DamagedFile('the inventory has a form that is unknown to this release', {
      cause: result.error,
    });
  return result.data;
}

/**
 * Covers the members in their order, without white space: the output of `JSON.stringify` after `JSON.parse`.
 */
function macOf(key: KeyObject, text: string): Buffer {
  return createHmac('sha256', key).update(`${FORMAT}\0${text}`, 'utf8').digest();
}

function parsed(content: Buffer): unknown {
  try {
    return JSON.parse(content.toString('utf8'));
  } catch {
    return undefined;
  }
}
