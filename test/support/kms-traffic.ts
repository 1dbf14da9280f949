import { formatReceipt, parseReceipt, RECEIPT_HEADER } from '@bundoc/shared/contract/kms-receipt';
import { scopeSchema, TOKEN_TTL_S_MAX } from '@bundoc/shared/contract/tokens';
import type { Draw } from './draw.ts';
import { type Answer, type Call, call, type Installation } from './installation.ts';
import type { RecordPlace } from './kms-operator.ts';

/** Something that must not work again. */
export interface Ended {
  readonly what: string;
  /** Whether the running BunKMS may not know of it: it started while its record was away. */
  isUnknown: boolean;
  /** The record of the end, once it was looked up. */
  readonly record: Promise<RecordPlace | undefined>;
}

export interface TestToken {
  readonly token: string;
  readonly jti: string;
  readonly family: string;
}

export interface TestKey {
  readonly name: string;
  /** Undefined while it may be exported. */
  ended: Ended | undefined;
  /** The running change. */
  busy: Promise<unknown>;
}

/** An export that was answered with a key. */
export interface Release {
  readonly key: TestKey;
  readonly token: TestToken;
  readonly seq: number;
  readonly hash: string;
  /** What had ended when the request was sent, and still has when the answer is there. */
  readonly ended: readonly Ended[];
}

export interface TrafficOptions {
  readonly installation: Installation;
  /** Of everything. */
  readonly admin: string;
  readonly docs: string;
  /** Receipts of another installation. */
  readonly foreign: readonly string[];
  /** The latest record that ends a key or a family of tokens. */
  readonly latestRecord: (of: string) => Promise<RecordPlace | undefined>;
  readonly onRelease: (release: Release) => Promise<void>;
  readonly onAnswer: (answer: Answer, what: string) => void;
}

const KEYS_MAX = 8;
const ENDS: readonly string[] = ['disable', 'schedule', 'shred'];

export function adminRequest() {
  const may = { projects: ['*'], keys: ['*'] };
  return {
    sub: 'ops',
    typ: 'service' as const,
    keys: ['*'],
    scope: scopeSchema.options.filter((scope) => scope.startsWith('kms:')),
    may_issue: { ...may, scopes: [...scopeSchema.options], ttl_s: TOKEN_TTL_S_MAX.service },
  };
}

/** Honest requests to both services, and those of an attacker who has only tokens. */
export class KmsTraffic {
  readonly #options: TrafficOptions;
  readonly #draw: Draw;
  readonly keys: TestKey[] = [];
  readonly tokens: TestToken[] = [];
  /** Ends of token families. */
  readonly revoked = new Map<string, Ended>();
  #receipts: string[] = [];
  #made = 0;

  constructor(options: TrafficOptions, draw: Draw) {
    this.#options = options;
    this.#draw = draw;
  }

  /** Everything that must not work again. */
  get ended(): Ended[] {
    return [...this.keys.flatMap(({ ended }) => ended ?? []), ...this.revoked.values()];
  }

  async begin(): Promise<void> {
    for (let n = 0; n < 3; n++) await this.createKey();
    for (let n = 0; n < 3; n++) await this.issue();
    await this.document('PUT');
  }

  /** Random requests at once. */
  async burst(count: number): Promise<void> {
    await Promise.all(Array.from({ length: count }, () => this.#one()));
  }

  #one(): Promise<unknown> {
    const draw = this.#draw;
    const all: readonly (readonly [number, () => Promise<unknown>])[] = [
      [8, () => this.export()],
      [4, () => this.#changeKey()],
      [1, () => this.createKey()],
      [2, () => this.issue()],
      [1, () => this.#renew()],
      [3, () => this.#revoke()],
      [2, () => this.document('PUT')],
      [3, () => this.document('GET')],
      [1, () => this.#rotateKek()],
      [3, () => this.#sendReceipt()],
      [1, () => this.#send('GET', draw.oneOf(['/v1/keys', '/v1/tokens', '/v1/audit', '/v1/kek']))],
    ];
    let at = draw.below(all.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, run] of all) {
      at -= weight;
      if (at < 0) return run();
    }
    return Promise.resolve();
  }

  async createKey(max = KEYS_MAX): Promise<void> {
    if (this.keys.length >= max) return;
    const name = `k${this.#made++}-dek`;
    const { status } = await this.#send('POST', '/v1/keys', { name, type: 'aes-256' });
    if (status === 201) this.keys.push({ name, ended: undefined, busy: Promise.resolve() });
  }

  async issue(): Promise<void> {
    const scope = ['kms:export_key'];
    const answer = await this.#send('POST', '/v1/tokens', { sub: 'x', typ: 'service', scope, keys: ['*'] });
    if (answer.status === 201) this.#take(answer);
  }

  /** Forgets the receipts of records that are not in the chain any more. */
  forgetReceipts(chain: ReadonlyMap<number, string>): void {
    this.#receipts = this.#receipts.filter((text) => {
      const receipt = parseReceipt(text);
      return receipt !== undefined && chain.get(receipt.seq) === receipt.hash;
    });
  }

  /** A new key is released to a new token. */
  async releaseNew(): Promise<void> {
    await this.createKey(Number.POSITIVE_INFINITY);
    await this.issue();
    await this.export(this.keys.at(-1), this.tokens.at(-1));
  }

  async #renew(): Promise<void> {
    const token = this.#draw.maybeOf(this.tokens);
    if (token === undefined) return;
    const answer = await this.#send('POST', '/v1/tokens/renew', undefined, token.token);
    if (answer.status === 201) this.#take(answer);
  }

  #take(answer: Answer): void {
    const { token, jti, family } = answer.json() as unknown as TestToken;
    this.tokens.push({ token, jti, family });
  }

  async #revoke(): Promise<void> {
    const token = this.#draw.maybeOf(this.tokens);
    if (token === undefined) return;
    const { status } = await this.#send('DELETE', `/v1/tokens/${token.jti}`);
    if (status === 204) this.revoked.set(token.family, this.#end(`the token ${token.jti}`, token.family));
  }

  /** Changes of one key follow each other, so that the last answer says what it is. */
  #changeKey(): Promise<void> {
    const key = this.#draw.maybeOf(this.keys);
    if (key === undefined) return Promise.resolve();
    const action = this.#draw.oneOf([
      'rotate',
      'rotate',
      'disable',
      'enable',
      'schedule',
      'restore',
      'shred',
    ]);
    const next = key.busy.then(() => this.#change(key, action));
    key.busy = next;
    return next;
  }

  async #change(key: TestKey, action: string): Promise<void> {
    const { name } = key;
    // Asked for, it may happen from now on.
    if (action === 'enable' || action === 'restore') key.ended = undefined;
    const { status } =
      action === 'schedule' || action === 'shred'
        ? await this.#send(
            'DELETE',
            `/v1/keys/${name}${action === 'shred' ? `?pending_days=0&confirm=${name}` : ''}`,
          )
        : await this.#send('POST', `/v1/keys/${name}/${action}`);
    if (status < 300 && ENDS.includes(action)) key.ended = this.#end(`${action} of ${name}`, name);
  }

  #end(what: string, of: string): Ended {
    return { what, isUnknown: false, record: this.#options.latestRecord(of) };
  }

  /** Exports a key with a token, whatever became of either. */
  async export(
    key = this.#draw.maybeOf(this.keys),
    token = this.#draw.maybeOf(this.tokens),
    receipt?: string,
  ): Promise<void> {
    if (key === undefined || token === undefined) return;
    const before = this.#endedOf(key, token);
    const headers = receipt === undefined ? {} : { headers: { [RECEIPT_HEADER]: receipt } };
    const answer = await this.#call(`/v1/export/${key.name}`, { token: token.token, ...headers });
    if (answer.status !== 200) return;
    const { audit } = answer.json() as { audit: { seq: number; hash: string } };
    this.#receipts.push(String(answer.headers[RECEIPT_HEADER]));
    const after = this.#endedOf(key, token);
    const ended = before.filter((one) => after.includes(one));
    await this.#options.onRelease({ key, token, ...audit, ended });
  }

  /** Tries everything that must not work again, and each key and token that should. */
  async probe(): Promise<void> {
    const ofKeys = this.keys.map((key) =>
      this.export(
        key,
        this.tokens.find(({ family }) => !this.revoked.has(family)),
      ),
    );
    const key = this.keys.find(({ ended }) => ended === undefined);
    await Promise.all([...ofKeys, ...this.tokens.map((token) => this.export(key, token))]);
  }

  #endedOf(key: TestKey, { family }: TestToken): Ended[] {
    return [key.ended, this.revoked.get(family)].filter((one) => one !== undefined);
  }

  async document(method: 'GET' | 'PUT', project = `p${this.#draw.below(3)}`): Promise<Answer> {
    const { installation, docs: token, onAnswer } = this.#options;
    const path = `/v1/projects/${project}/collections/notes/documents/${this.#draw.oneOf(['one', 'two'])}`;
    const body = method === 'PUT' ? { body: '{"text":"t"}' } : {};
    const answer = await call(installation.url, path, { method, token, ...body });
    onAnswer(answer, `${method} ${path}`);
    return answer;
  }

  async #rotateKek(): Promise<void> {
    await this.#send('POST', '/v1/kek/rotate', {});
  }

  /** A genuine, replayed, changed, foreign or malformed receipt with a valid token. */
  async #sendReceipt(): Promise<void> {
    const draw = this.#draw;
    const genuine = draw.maybeOf(this.#receipts);
    const parsed = genuine === undefined ? undefined : parseReceipt(genuine);
    const other = draw.maybeOf(this.#receipts.map(parseReceipt));
    const changed =
      parsed &&
      formatReceipt({
        ...parsed,
        ...draw.oneOf([
          { seq: parsed.seq + 1 + draw.below(1_000) },
          { epoch: parsed.epoch + 1 + draw.below(1_000) },
          { epoch: Date.now() },
          { hash: other?.hash.replace(/^./, '0') ?? 'a'.repeat(64) },
          { mac: 'A'.repeat(43) },
          { mac: other?.mac ?? '' },
          { installation: '0'.repeat(16) },
          { seq: Number.MAX_SAFE_INTEGER },
        ]),
      });
    const value = draw.oneOf([
      genuine,
      genuine,
      changed,
      changed,
      draw.oneOf(this.#options.foreign),
      'x',
      '',
    ]);
    const all = draw.chance(0.2)
      ? [value, draw.maybeOf(this.#receipts), draw.oneOf(this.#options.foreign)].filter(Boolean).join(',')
      : value;
    await this.export(undefined, undefined, all ?? '');
  }

  #send(method: string, path: string, body?: object, token = this.#options.admin): Promise<Answer> {
    return this.#call(path, { method, token, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  }

  async #call(path: string, options: Call): Promise<Answer> {
    const answer = await call(this.#options.installation.kms.internalUrl, path, options);
    this.#options.onAnswer(answer, `${options.method ?? 'GET'} ${path}`);
    return answer;
  }
}
