import { createSecretKey, type KeyObject, randomBytes, randomUUID } from 'node:crypto';
import { keyCheckValue } from '@bundoc/shared/aead';
import { type Clock, instant } from '@bundoc/shared/clock';
import type { DestroyReceipt } from '@bundoc/shared/contract/keys';
import { AppError } from '@bundoc/shared/errors';
import type { KeyDestroyer, KeyService, LeasedKey } from '../kms/port.ts';

interface KeptKey {
  readonly keyId: string;
  readonly dek: KeyObject;
  wrapped: string;
  /** 1 unless it was rotated. */
  readonly version?: number;
  /** Former versions. */
  readonly before?: readonly KeptKey[];
}

/** A key service in memory that counts its calls and fails on command. */
export class FakeKeyService implements KeyService, KeyDestroyer {
  readonly #clock: Clock;
  readonly keys = new Map<string, KeptKey>();
  exports = 0;
  creations = 0;
  rotations = 0;
  destructions = 0;
  /** Names of destroyed keys. */
  readonly destroyed = new Set<string>();
  /** When false, this service may not destroy keys. */
  mayDestroy = true;
  /** Called when a key was destroyed, before that is answered. */
  onDestroyed: (() => void) | undefined;
  ttlMs = 900_000;
  /** When set, every call fails with it. */
  failure: AppError | undefined;
  /** When set, exports wait for it. */
  gate: Promise<void> | undefined;
  /** When set, answers of exports arrive after it. */
  afterExport: Promise<void> | undefined;
  /** Called when an export is asked for. */
  onExport: (() => void) | undefined;
  /** Exports under way, now and at most so far. */
  running = 0;
  runningMax = 0;
  /** Called before a key is made: another node may come first here. */
  beforeCreate: ((name: string) => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async exportKey(name: string, version?: number): Promise<LeasedKey> {
    this.exports++;
    const requestedAt = instant(this.#clock);
    this.running++;
    this.runningMax = Math.max(this.runningMax, this.running);
    try {
      await this.gate;
    } finally {
      this.running--;
    }
    if (this.failure !== undefined) throw this.failure;
    if (this.destroyed.has(name)) throw new AppError('project_destroyed');
    const current = this.keys.get(name);
    const all = current === undefined ? [] : [current, ...(current.before ?? [])];
    const key = version === undefined ? current : all.find((one) => (one.version ?? 1) === version);
    if (key === undefined) throw new AppError('KEY_NOT_FOUND');
    this.onExport?.();
    await this.afterExport;
    return {
      keyId: key.keyId,
      version: key.version ?? 1,
      kcv: keyCheckValue(key.dek),
      wrapped: key.wrapped,
      dek: key.dek,
      requestedAt,
      ttlMs: this.ttlMs,
    };
  }

  async createKey(name: string): Promise<void> {
    this.creations++;
    if (this.failure !== undefined) throw this.failure;
    if (this.destroyed.has(name)) throw new AppError('project_destroyed');
    this.beforeCreate?.(name);
    if (!this.keys.has(name)) this.put(name);
  }

  async rotateKey(name: string, version: number): Promise<void> {
    this.rotations++;
    if (this.failure !== undefined) throw this.failure;
    const current = this.keys.get(name);
    if (current === undefined) throw new AppError('KEY_NOT_FOUND');
    if ((current.version ?? 1) !== version) return;
    const next = this.put(name);
    this.keys.set(name, {
      ...next,
      keyId: current.keyId,
      version: version + 1,
      before: [current, ...(current.before ?? [])],
    });
  }

  async requireDestroyable(_name: string): Promise<void> {
    if (this.failure !== undefined) throw this.failure;
    if (!this.mayDestroy) throw new AppError('kms_unavailable', { retryAfterS: 60 });
  }

  async destroyKey(name: string): Promise<DestroyReceipt | undefined> {
    await this.requireDestroyable(name);
    if (this.destroyed.has(name)) return undefined;
    const key = this.keys.get(name);
    if (key === undefined) throw new AppError('KEY_NOT_FOUND');
    this.destructions++;
    this.keys.delete(name);
    this.destroyed.add(name);
    this.onDestroyed?.();
    return {
      id: key.keyId,
      name,
      state: 'destroyed',
      revision: 2,
      destroyed_at: new Date(this.#clock.now()).toISOString(),
      kek_ids: ['0000000000000001'],
      audit: { seq: 1, hash: '00' },
    };
  }

  put(name: string): KeptKey {
    const key = {
      keyId: randomUUID(),
      dek: createSecretKey(randomBytes(32)),
      wrapped: randomBytes(69).toString('base64'),
    };
    this.keys.set(name, key);
    return key;
  }
}
