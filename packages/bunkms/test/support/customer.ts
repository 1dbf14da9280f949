import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TransitServer, type TransitToken } from './transit-server.ts';

/** What a customer does with his key. */
export type Attitude = 'present' | 'away' | 'denying';
export const ATTITUDES: readonly Attitude[] = ['present', 'away', 'denying'];
/** The refusals of an export meanwhile; undefined for none. */
export const REFUSAL = {
  present: undefined,
  away: 'outside_key_unavailable',
  denying: 'outside_key_denied',
} as const satisfies Record<Attitude, string | undefined>;

/** A customer with a service of his own, and the file that names his keys. */
export class Customer implements AsyncDisposable {
  readonly service: TransitServer;
  readonly #folder = mkdtempSync(join(tmpdir(), 'bunkms-customer-'));

  private constructor(service: TransitServer) {
    this.service = service;
  }

  /** With the keys `acme` and `other`, to which all of our keys may be attached. */
  static async start(): Promise<Customer> {
    const customer = new Customer(await TransitServer.start());
    for (const key of ['acme', 'other']) customer.service.keys.set(key, randomBytes(32));
    writeFileSync(join(customer.#folder, 'token'), customer.service.newToken());
    customer.write({ acme: {}, other: {} });
    return customer;
  }

  /** `BUNKMS_OUTSIDE_KEYS_FILE`. */
  get file(): string {
    return join(this.#folder, 'outside.json');
  }

  /** Writes the file, with changes to each entry. */
  write(entries: Readonly<Record<string, object>>): void {
    const keys = Object.entries(entries).map(([key, more]) => [
      key,
      { kind: 'transit', url: this.service.url, key, token_file: 'token', keys: ['*'], ...more },
    ]);
    writeFileSync(this.file, JSON.stringify({ keys: Object.fromEntries(keys) }));
  }

  set attitude(attitude: Attitude) {
    const { tokens } = this.service;
    for (const token of tokens.values() as Iterable<TransitToken>) token.mayUse = attitude !== 'denying';
    this.service.intercept = attitude === 'away' ? (_request, response) => response.destroy() : undefined;
  }

  /** Calls so far, of which it forgets. */
  takeCalls(): string[] {
    return this.service.asked.splice(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.service[Symbol.asyncDispose]();
    rmSync(this.#folder, { recursive: true });
  }
}
