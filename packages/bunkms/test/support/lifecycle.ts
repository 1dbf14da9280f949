import type { DatabaseSync } from 'node:sqlite';
import { type KeyInfo, keyInfoSchema } from '@bundoc/shared/contract/keys';
import { expect } from 'vitest';
import { withDatabase } from './database.ts';
import type { Answer } from './http.ts';
import type { TestKms } from './kms.ts';

/** The states that a test can give a key. */
export const STATES = ['enabled', 'disabled', 'pending_deletion', 'destroyed'] as const;
export type State = (typeof STATES)[number];

/** Requests on keys with a token that may do everything. */
export class KeyCalls {
  readonly #kms: TestKms;
  readonly #token: string;

  private constructor(kms: TestKms, token: string) {
    this.#kms = kms;
    this.#token = token;
  }

  static async of(kms: TestKms): Promise<KeyCalls> {
    return new KeyCalls(kms, await kms.fullToken());
  }

  /** The same token at another service over the same store. */
  at(kms: TestKms): KeyCalls {
    return new KeyCalls(kms, this.#token);
  }

  create(name: string, more: object = {}, headers: Record<string, string> = {}): Promise<Answer> {
    return this.#send('POST', '/v1/keys', headers, { name, type: 'aes-256', ...more });
  }

  read(name: string): Promise<Answer> {
    return this.#send('GET', `/v1/keys/${name}`);
  }

  export(name: string, version?: number): Promise<Answer> {
    const query = version === undefined ? '' : `?version=${version}`;
    return this.#kms.internal(`/v1/export/${name}${query}`, { token: this.#token });
  }

  post(name: string, action: string, headers: Record<string, string> = {}): Promise<Answer> {
    return this.#send('POST', `/v1/keys/${name}/${action}`, headers);
  }

  patch(name: string, body: object, headers: Record<string, string> = {}): Promise<Answer> {
    return this.#send('PATCH', `/v1/keys/${name}`, headers, body);
  }

  delete(name: string, query = '', headers: Record<string, string> = {}): Promise<Answer> {
    return this.#send('DELETE', `/v1/keys/${name}${query}`, headers);
  }

  shred(name: string, headers: Record<string, string> = {}): Promise<Answer> {
    return this.delete(name, `?pending_days=0&confirm=${name}`, headers);
  }

  destroyVersion(name: string, version: number, headers: Record<string, string> = {}): Promise<Answer> {
    return this.#send('DELETE', `/v1/keys/${name}/versions/${version}?confirm=${name}`, headers);
  }

  crypto(
    operation: 'encrypt' | 'decrypt' | 'rewrap' | 'data-key',
    name: string,
    body: object,
  ): Promise<Answer> {
    return this.#send('POST', `/v1/${operation}/${name}`, {}, body);
  }

  /** A ciphertext of some plaintext under the current version. */
  async ciphertext(name: string): Promise<string> {
    return String((await this.crypto('encrypt', name, { plaintext_b64: '' })).json().ciphertext_b64);
  }

  list(): Promise<Answer> {
    return this.#send('GET', '/v1/keys');
  }

  /**
   * A key of two versions in that state.
   *
   * @returns a ciphertext under each version, from before the change of state.
   */
  async make(name: string, state: State): Promise<readonly [string, string]> {
    expect((await this.create(name)).status).toBe(201);
    const first = await this.ciphertext(name);
    expect((await this.post(name, 'rotate')).status).toBe(200);
    const second = await this.ciphertext(name);
    if (state === 'disabled') expect((await this.post(name, 'disable')).status).toBe(200);
    if (state === 'pending_deletion') expect((await this.delete(name)).status).toBe(202);
    if (state === 'destroyed') expect((await this.shred(name)).status).toBe(200);
    return [first, second];
  }

  #send(method: string, path: string, headers: Record<string, string> = {}, body?: object): Promise<Answer> {
    return this.#kms.api(path, { method, token: this.#token, headers, ...(body && { body }) });
  }
}

export function infoIn(answer: Answer): KeyInfo {
  expect(answer.status, answer.text).toBeLessThan(300);
  return keyInfoSchema.strict().parse(answer.json());
}

/** Modifies the database like an attacker with the disk. */
export function edit(kms: TestKms, change: string | ((database: DatabaseSync) => void)): void {
  withDatabase(kms.dataDir, typeof change === 'string' ? (database) => database.exec(change) : change);
}
