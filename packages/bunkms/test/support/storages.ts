import { randomUUID } from 'node:crypto';
import { type KeyInfo, keyInfoSchema } from '@bundoc/shared/contract/keys';
import { deletionIntentSchema, deletionPageSchema } from '@bundoc/shared/contract/storages';
import { expect } from 'vitest';
import { type KeyRecord, keyChangeDraft } from '../../src/records/key-record.ts';
import type { Answer } from './http.ts';
import type { TestKms } from './kms.ts';

/** The actions of a storage on a key. */
export type StorageAction =
  | 'claim'
  | 'offer'
  | 'withdraw'
  | 'accept'
  | 'deletion-intent'
  | 'shred'
  | 'content-removed';

/** A storage of Bundoc, as BunKMS sees it. */
export class TestStorageNode {
  readonly id: string;
  #generation: string;
  readonly #kms: TestKms;
  readonly #token: string;

  private constructor(kms: TestKms, token: string, id: string, generation: string) {
    this.#kms = kms;
    this.#token = token;
    this.id = id;
    this.#generation = generation;
  }

  /** Creates a registered storage. */
  static async of(kms: TestKms): Promise<TestStorageNode> {
    const storage = await TestStorageNode.at(kms, { storage: randomUUID(), generation: randomUUID() });
    expect((await storage.advance([], storage.#generation)).status).toBe(200);
    return storage;
  }

  /** A storage that uses this BunKMS, with a generation that it had at another. */
  static async at(
    kms: TestKms,
    { storage, generation }: TestStorageNode['acting'],
  ): Promise<TestStorageNode> {
    const { token } = await kms.issue({
      sub: 'bundoc',
      scope: ['kms:create_key', 'kms:read_key', 'kms:export_key', 'kms:shred_key'],
      keys: ['*'],
      ttl_s: 86_400,
    });
    return new TestStorageNode(kms, token, storage, generation);
  }

  get generation(): string {
    return this.#generation;
  }

  get acting() {
    return { storage: this.id, generation: this.#generation };
  }

  /** Another copy of it with the same generation. */
  copy(): TestStorageNode {
    return new TestStorageNode(this.#kms, this.#token, this.id, this.#generation);
  }

  async advance(from: readonly string[] = [this.#generation], to: string = randomUUID()): Promise<Answer> {
    const answer = await this.#post(`/v1/storages/${this.id}/advance`, { from, to });
    if (answer.status === 200) this.#generation = to;
    return answer;
  }

  create(name: string): Promise<Answer> {
    return this.#post('/v1/keys', { name, type: 'aes-256', ...this.acting });
  }

  export(name: string): Promise<Answer> {
    const { storage, generation } = this.acting;
    const path = `/v1/export/${name}?storage=${storage}&generation=${generation}`;
    return this.#kms.internal(path, { token: this.#token });
  }

  act(action: StorageAction, name: string, more: object = {}): Promise<Answer> {
    return this.#post(`/v1/keys/${name}/${action}`, { ...this.acting, ...more });
  }

  async intend(name: string) {
    const answer = await this.act('deletion-intent', name);
    expect(answer.status, answer.text).toBe(200);
    return deletionIntentSchema.strict().parse(answer.json());
  }

  async deletions(query = '') {
    const path = `/v1/storages/${this.id}/deletions?generation=${this.#generation}${query}`;
    const answer = await this.#kms.internal(path, { token: this.#token });
    expect(answer.status, answer.text).toBe(200);
    return deletionPageSchema.strict().parse(answer.json());
  }

  #post(path: string, body: object): Promise<Answer> {
    return this.#kms.internal(path, { token: this.#token, body });
  }
}

/** Puts a key into any possible state, with a record, as if from an earlier history. */
export async function setKey(
  kms: TestKms,
  name: string,
  more: Partial<KeyRecord>,
  action = 'key.update',
): Promise<KeyRecord> {
  const stored = await kms.store.findKey(name, 'current');
  if (stored?.record === undefined) throw new Error(`there is no key ${name}`);
  const previous = stored.record;
  const record = { ...previous, ...more, revision: previous.revision + 1 };
  const origin = { caller: { actor: 'test' }, time: stored.lastChange?.time ?? previous.createdAt, action };
  const audit = keyChangeDraft(origin, record);
  expect(await kms.store.updateKey({ record, versions: [], audit, previous })).toBeDefined();
  return record;
}

export function keyIn(answer: Answer): KeyInfo {
  expect(answer.status, answer.text).toBe(200);
  return keyInfoSchema.strict().parse(answer.json());
}
