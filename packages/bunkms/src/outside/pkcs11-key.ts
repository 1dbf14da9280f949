import { stampOf } from '@bundoc/shared/files/file-stamp';
import type { Environment } from '@bundoc/shared/process/config';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import type { Pkcs11Settings } from './pkcs11-calls.ts';
import { PinRefusedError, Pkcs11Process } from './pkcs11-process.ts';
import { OutsideKeyError, type OutsideProvider } from './port.ts';

/** After a token could not be opened, calls fail for this time, milliseconds. Then it is tried again. */
const OPEN_AGAIN_MS = 1_000;

export interface Pkcs11KeyOptions extends Pkcs11Settings {
  /** Modules are configured by it. The variables of BunKMS are left out. */
  readonly environment?: Environment | undefined;
}

/** An opening that failed. */
interface Failure {
  readonly error: OutsideKeyError;
  readonly pinStamp: string;
  readonly atMs: number;
}

/**
 * A key of a PKCS#11 token: an HSM, a TPM or a smart card. The module of its vendor runs in a process of its
 * own, which the first call starts. After a hang or a crash, the next call starts another.
 *
 * A wrong PIN is tried once. A token counts wrong tries, and locks itself.
 */
export class Pkcs11Key implements OutsideProvider {
  /** The serial of the token, or its label when the entry has none, and the label of the key. */
  readonly realName: string;
  readonly #settings: Pkcs11Settings;
  readonly #environment: Environment;
  readonly #clock: Clock;
  #running: { readonly process: Pkcs11Process; readonly pinStamp: string } | undefined;
  #failure: Failure | undefined;
  readonly #ending = new Set<Promise<void>>();
  #isClosed = false;

  constructor(options: Pkcs11KeyOptions, clock: Clock = systemClock) {
    const { environment = process.env, module, token, serial, key, pinFile, oaepHash } = options;
    this.realName = [serial ?? token, key].join('\0');
    this.#settings = { module, token, serial, key, pinFile, oaepHash };
    this.#environment = environment;
    this.#clock = clock;
  }

  /** Of the process that runs now. */
  get pid(): number | undefined {
    return this.#running?.process.pid;
  }

  async wrap(secret: Uint8Array, signal: AbortSignal): Promise<Buffer> {
    return await this.#process().call({ operation: 'wrap', bytes: secret }, signal);
  }

  async unwrap(blob: Uint8Array, signal: AbortSignal): Promise<Buffer> {
    return await this.#process().call({ operation: 'unwrap', bytes: blob }, signal);
  }

  async prepare(): Promise<void> {
    // The next call says why it failed.
    await this.#process().opened.catch(() => undefined);
  }

  async checkCredential(signal: AbortSignal): Promise<void> {
    await this.#process().call({ operation: 'checkCredential' }, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await Promise.all([this.#running?.process.close(), ...this.#ending]);
  }

  /** The process that runs. Another one is started when there is none, or the PIN has changed. */
  #process(): Pkcs11Process {
    if (this.#isClosed) throw new OutsideKeyError('unavailable', 'the key is closed');
    const pinStamp = stampOf(this.#settings.pinFile);
    const running = this.#running;
    if (running?.process.isOver === false && running.pinStamp === pinStamp) return running.process;
    const failure = this.#failure;
    if (failure?.pinStamp === pinStamp) {
      const isEarly = this.#clock.monotonic() - failure.atMs < OPEN_AGAIN_MS;
      if (isEarly || failure.error instanceof PinRefusedError) throw failure.error;
    }
    this.#end(running?.process);
    const started = new Pkcs11Process(this.#settings, pinStamp, this.#environment);
    this.#running = { process: started, pinStamp };
    started.opened.catch((error: OutsideKeyError) => {
      this.#failure = { error, pinStamp, atMs: this.#clock.monotonic() };
    });
    return started;
  }

  #end(process: Pkcs11Process | undefined): void {
    if (process === undefined) return;
    const ending = process.retire().finally(() => this.#ending.delete(ending));
    this.#ending.add(ending);
  }
}
