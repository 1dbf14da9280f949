import { AppError } from '@bundoc/shared/contract/app-error';
import { projectIdSchema } from '@bundoc/shared/contract/documents';
import {
  type AuditReceipt,
  type CreateKeyInput,
  type DestroyReceipt,
  destroyReceiptSchema,
  type KeyInfo,
  keyPageSchema,
  outsideNameSchema,
  projectOfDek,
} from '@bundoc/shared/contract/keys';
import { PROBLEMS } from '@bundoc/shared/contract/problem';
import {
  type AdvanceStorage,
  type DeletionIntent,
  deletionIntentSchema,
  deletionPageSchema,
  type HolderOfKey,
  type IntendDeletion,
  type MoveOfKey,
  type OfferKey,
  type ShredKey,
  type StorageInfo,
  storageInfoSchema,
  type UnfinishedDeletion,
} from '@bundoc/shared/contract/storages';
import { issuedTokenSchema, type Jwks, jwksSchema } from '@bundoc/shared/contract/tokens';
import { keyCheckValue } from '@bundoc/shared/crypto/aead';
import { decodeExportedKey } from '@bundoc/shared/crypto/exported-key';
import { parseJson } from '@bundoc/shared/json/parse-json';
import { type Clock, instant } from '@bundoc/shared/runtime/clock';
import { z } from 'zod';
import { OutsideKeys } from './outside-keys.ts';
import {
  type ActingStorage,
  type ExportReason,
  KeyRefused,
  type LeasedKey,
  type StorageCalls,
} from './port.ts';
import {
  type CallOptions,
  type Expected,
  KmsTransport,
  type KmsTransportOptions,
  RETRY_AFTER_S,
} from './transport.ts';

/** Unfinished deletions in one page, so that it stays below the maximum size of an answer. */
const DELETIONS_AT_ONCE = 100;
/** Keys in one page, for the same reason. BunKMS counts such a page as one read. */
const KEYS_AT_ONCE = 50;
/** The time to retry when an operator must replace the service token first. */
const RETRY_AFTER_REFUSED_S = 60;

export interface KmsClientOptions extends KmsTransportOptions {
  /** What is known of customers' outside keys; commands know nothing at first. */
  readonly outside?: OutsideKeys;
}

/** The member of a created key that is read. */
const createdSchema = z.object({ outside: z.object({ key: outsideNameSchema }) });

/** The calls of BunKMS's internal interface. */
export class KmsClient implements StorageCalls {
  readonly #clock: Clock;
  readonly #transport: KmsTransport;
  readonly #outside: OutsideKeys;

  constructor(options: KmsClientOptions) {
    this.#clock = options.clock;
    this.#outside = options.outside ?? new OutsideKeys(options.clock);
    this.#transport = new KmsTransport(options);
  }

  async exportKey(name: string, version?: number, acting?: ActingStorage | ExportReason): Promise<LeasedKey> {
    const requestedAt = instant(this.#clock);
    const query = new URLSearchParams({ ...acting });
    if (version !== undefined) query.set('version', String(version));
    const path = query.size === 0 ? `/v1/export/${name}` : `/v1/export/${name}?${query}`;
    const { body } = await this.#askFor(name, 'GET', path, [200]);
    const { facts, dek } = readExport(body);
    this.#outside.answered(name, facts.outside_key);
    const isAsked = facts.name === name && (version ?? facts.version) === facts.version;
    if (!isAsked || keyCheckValue(dek) !== facts.kcv) throw new AppError('key_mismatch');
    return {
      keyId: facts.key_id,
      version: facts.version,
      kcv: facts.kcv,
      wrapped: facts.wrapped_b64,
      dek,
      requestedAt,
      ttlMs: facts.lease.ttl_ms,
    };
  }

  async createKey(name: string, acting?: ActingStorage): Promise<boolean> {
    const key: CreateKeyInput = {
      name,
      type: 'aes-256',
      ...acting,
    };
    const { status, body } = await this.#askFor(name, 'POST', '/v1/keys', [201, 'key_exists'], key);
    if (status !== 201) return false;
    const outside = createdSchema.safeParse(parseJson(body.toString('utf8'))).data?.outside;
    if (outside !== undefined) this.#outside.answered(name, outside.key);
    return true;
  }

  async claimKey(name: string, acting: ActingStorage): Promise<void> {
    await this.#change(name, 'claim', { ...acting } satisfies HolderOfKey);
  }

  async rotateKey(name: string, version: number): Promise<void> {
    await this.#askFor(name, 'POST', `/v1/keys/${name}/rotate?expected_version=${version}`, [200]);
  }

  async intendDeletion(name: string, client: string, acting: ActingStorage): Promise<DeletionIntent> {
    const { status, body, retryAfterS } = await withShredDetail(
      this.#transport.call(
        'POST',
        `/v1/keys/${name}/deletion-intent`,
        [200, 'rate_limited', 'overloaded'],
        { ...acting, client } satisfies IntendDeletion,
        { retries: 0 },
      ),
    );
    if (status === 200) return readAnswer(deletionIntentSchema, body);
    const isOwn = status === PROBLEMS.rate_limited.status;
    throw new AppError(isOwn ? 'rate_limited' : 'overloaded', {
      detail: isOwn ? 'your share of deletions is in use' : 'the service has no deletions to spare',
      retryAfterS: retryAfterS ?? RETRY_AFTER_S,
    });
  }

  async shredKey(name: string, receipt: AuditReceipt, acting: ActingStorage): Promise<DestroyReceipt> {
    const shred = this.#change(name, 'shred', { ...acting, receipt } satisfies ShredKey);
    return readAnswer(destroyReceiptSchema, await withShredDetail(shred));
  }

  async contentRemoved(name: string, acting: ActingStorage): Promise<void> {
    await withShredDetail(this.#change(name, 'content-removed', { ...acting } satisfies HolderOfKey));
  }

  async unfinishedDeletions({ storage, generation }: ActingStorage): Promise<readonly UnfinishedDeletion[]> {
    const found: UnfinishedDeletion[] = [];
    for (let cursor: string | undefined, isFirst = true; isFirst || cursor !== undefined; isFirst = false) {
      const query = new URLSearchParams({ generation, limit: String(DELETIONS_AT_ONCE) });
      if (cursor !== undefined) query.set('cursor', cursor);
      const { body } = await withShredDetail(
        this.#transport.call('GET', `/v1/storages/${storage}/deletions?${query}`, [200]),
      );
      const page = readAnswer(deletionPageSchema, body);
      found.push(...page.deletions);
      cursor = page.next_cursor;
    }
    return found;
  }

  async *heldProjects(storage: string): AsyncGenerator<readonly string[]> {
    for (let cursor: string | undefined, isFirst = true; isFirst || cursor !== undefined; isFirst = false) {
      const query = new URLSearchParams({ limit: String(KEYS_AT_ONCE) });
      if (cursor !== undefined) query.set('cursor', cursor);
      const { body } = await this.#transport.call('GET', `/v1/keys?${query}`, [200]);
      const page = readAnswer(keyPageSchema, body);
      // A key may have a name that no project can have.
      yield page.keys
        .filter((key) => isHeldBy(storage, key))
        .map(({ name }) => projectOfDek(name))
        .filter((project) => project !== undefined)
        .filter((project) => projectIdSchema.safeParse(project).data === project);
      cursor = page.next_cursor;
    }
  }

  async offerKey(name: string, to: string, move: string, acting: ActingStorage): Promise<void> {
    await this.#change(name, 'offer', { ...acting, to, move } satisfies OfferKey);
  }

  async withdrawOffer(name: string, move: string, acting: ActingStorage): Promise<void> {
    await this.#change(name, 'withdraw', { ...acting, move } satisfies MoveOfKey);
  }

  async acceptKey(name: string, move: string, acting: ActingStorage): Promise<void> {
    await this.#change(name, 'accept', { ...acting, move } satisfies MoveOfKey);
  }

  async storageInfo(id: string): Promise<StorageInfo> {
    const { body } = await this.#transport.call('GET', `/v1/storages/${id}`, [200]);
    return readAnswer(storageInfoSchema, body);
  }

  async advanceStorage(id: string, from: readonly string[], to: string): Promise<StorageInfo> {
    const change: AdvanceStorage = { from: [...from], to };
    const { body } = await this.#transport.call('POST', `/v1/storages/${id}/advance`, [200], change);
    return readAnswer(storageInfoSchema, body);
  }

  /** The keys that tokens are signed with. */
  async fetchJwks(): Promise<Jwks> {
    const { body } = await this.#transport.call('GET', '/.well-known/jwks.json', [200]);
    return readAnswer(jwksSchema, body);
  }

  /** Renews the service token: the same rights, a full lifetime. */
  async renewToken(): Promise<string> {
    const { body } = await this.#transport.call('POST', '/v1/tokens/renew', [201]);
    return readAnswer(issuedTokenSchema, body).token;
  }

  /** @see KmsTransport.outage */
  outage(): Promise<unknown> {
    return this.#transport.outage();
  }

  /** @see KmsTransport.openEvents */
  openEvents(lastEventId: string | undefined, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    return this.#transport.openEvents(lastEventId, signal);
  }

  /** Aborts the running calls. Resolves once they have ended. */
  close(): Promise<void> {
    return this.#transport.close();
  }

  /** A call that BunKMS may answer only after an outside key has. */
  #askFor(name: string, method: 'GET' | 'POST', path: string, expected: Expected[], body?: unknown) {
    const options: CallOptions = this.#outside.isExpected(name)
      ? { lane: 'customers', outsideKey: this.#outside.of(name) }
      : { lane: path === '/v1/keys' ? 'creations' : 'ordinary' };
    return this.#outside.during(name, () => this.#transport.call(method, path, expected, body, options));
  }

  /** Changes a key on behalf of a storage. */
  async #change(name: string, change: string, body: unknown): Promise<Buffer> {
    return (await this.#transport.call('POST', `/v1/keys/${name}/${change}`, [200], body)).body;
  }
}

function isHeldBy(storage: string, key: KeyInfo): boolean {
  return key.holder === storage && key.state !== 'destroyed' && key.deletion_intended_at === undefined;
}

/** Says what to do when BunKMS does not let this service shred a key. */
async function withShredDetail<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    if (!(error instanceof AppError && error.cause instanceof KeyRefused)) throw error;
    throw new AppError('kms_unavailable', {
      cause: error.cause,
      retryAfterS: RETRY_AFTER_REFUSED_S,
      detail:
        "Bundoc's service token may not shred keys: it needs the scope kms:shred_key (bunkms init --service-token makes one that has it)",
    });
  }
}

function readExport(body: Buffer): ReturnType<typeof decodeExportedKey> {
  try {
    return decodeExportedKey(body);
  } catch (error) {
    throw new AppError('kms_unavailable', { cause: error, retryAfterS: RETRY_AFTER_S });
  }
}

function readAnswer<S extends z.ZodType>(schema: S, body: Buffer): z.infer<S> {
  try {
    return schema.parse(JSON.parse(body.toString('utf8')));
  } catch {
    // The parser's error quotes the answer, which may hold a key, so it is dropped.
    throw new AppError('kms_unavailable', { retryAfterS: RETRY_AFTER_S });
  } finally {
    body.fill(0);
  }
}
