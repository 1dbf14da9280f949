import { describe, expect, it } from 'vitest';
import type { Answer } from './support/http.ts';
import { kekIdOfText } from './support/keks.ts';
import { newKek, startKms, type TestKms } from './support/kms.ts';
import { KeyCalls, type State } from './support/lifecycle.ts';
import { isLinearizable, type Timed } from './support/linearizability.ts';

const NAME = 'one-dek';

/** A key in the sequential model; absent before its creation. */
interface Model {
  readonly state: State | 'absent';
  readonly version: number;
  readonly revision: number;
}

type Kind =
  | 'create'
  | 'rotate'
  | 'export'
  | 'encrypt'
  | 'decrypt'
  | 'read'
  | 'enable'
  | 'disable'
  | 'schedule'
  | 'restore'
  | 'shred';

interface Operation extends Timed {
  readonly kind: Kind;
  /** The code of a refusal, or the version (of a key or an export) and the revision in the answer. */
  readonly code: string | undefined;
  readonly version: number | undefined;
  readonly revision: number | undefined;
}

const ABSENT: Model = { state: 'absent', version: 0, revision: 0 };

/** The sequential specification of the service. */
function step(model: Model, operation: Operation): readonly Model[] {
  const refusal = refusalOf(model, operation.kind);
  if (refusal !== undefined) return operation.code === refusal ? [model] : [];
  if (operation.code !== undefined) return [];
  return outcomesOf(model, operation.kind).filter(
    (after) =>
      (operation.version === undefined || operation.version === after.version) &&
      (operation.revision === undefined || operation.revision === after.revision),
  );
}

function refusalOf({ state }: Model, kind: Kind): string | undefined {
  if (kind === 'create')
    return state === 'absent' ? undefined : state === 'destroyed' ? 'key_destroyed' : 'key_exists';
  if (state === 'absent') return 'key_not_found';
  if (state === 'destroyed') return 'key_destroyed';
  if (kind === 'restore') return state === 'pending_deletion' ? undefined : 'key_not_pending_deletion';
  const isUse = kind === 'rotate' || kind === 'export' || kind === 'encrypt' || kind === 'decrypt';
  if (state === 'pending_deletion' && (isUse || kind === 'enable' || kind === 'disable'))
    return 'key_pending_deletion';
  return state === 'disabled' && isUse ? 'key_disabled' : undefined;
}

function outcomesOf(model: Model, kind: Kind): readonly Model[] {
  const become = (state: State): Model =>
    model.state === state ? model : { ...model, state, revision: model.revision + 1 };
  switch (kind) {
    case 'create':
      return [{ state: 'enabled', version: 1, revision: 1 }];
    case 'rotate':
      // A rotation that another one overtook returns the version of that one.
      return [model, { ...model, version: model.version + 1, revision: model.revision + 1 }];
    case 'export':
    case 'encrypt':
    case 'decrypt':
    case 'read':
      return [model];
    case 'enable':
      return [become('enabled')];
    case 'disable':
    case 'restore':
      return [become('disabled')];
    case 'schedule':
      return [become('pending_deletion')];
    case 'shred':
      return [become('destroyed')];
  }
}

/** The call of each kind, with a ciphertext of the key once there is one. */
const CALLS: Record<Kind, (keys: KeyCalls, ciphertext: string) => Promise<Answer>> = {
  create: (keys) => keys.create(NAME),
  rotate: (keys) => keys.post(NAME, 'rotate'),
  export: (keys) => keys.export(NAME),
  encrypt: (keys) => keys.crypto('encrypt', NAME, { plaintext_b64: '' }),
  decrypt: (keys, ciphertext) => keys.crypto('decrypt', NAME, { ciphertext_b64: ciphertext }),
  read: (keys) => keys.read(NAME),
  enable: (keys) => keys.post(NAME, 'enable'),
  disable: (keys) => keys.post(NAME, 'disable'),
  schedule: (keys) => keys.delete(NAME),
  restore: (keys) => keys.post(NAME, 'restore'),
  shred: (keys) => keys.shred(NAME),
};

/** A small random generator (mulberry32) with a seed, so that a failing run can be repeated. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const WEIGHTED: readonly Kind[] = [
  ...Array.from({ length: 3 }, () => ['create', 'rotate', 'disable', 'enable', 'read'] as const).flat(),
  ...Array.from({ length: 6 }, () => ['export', 'encrypt', 'decrypt'] as const).flat(),
  ...(['schedule', 'restore', 'restore'] as const),
];

/** Rotates between the two KEKs of the ring. */
function kekRotator(kms: TestKms, ring: string): () => Promise<void> {
  const kekIds = ring.split('\n').map(kekIdOfText);
  let times = 0;
  return async () => {
    const kekId = kekIds[++times % kekIds.length];
    const answer = await kms.api('/v1/kek/rotate', { token: await kms.fullToken(), body: { kek_id: kekId } });
    expect(answer.status, answer.text).toBe(202);
  };
}

describe('concurrent calls on one key', () => {
  it.each([1, 2, 3, 4])('are linearizable: 100 calls through two services (seed %i)', async (seed) => {
    const kek = `${newKek()}\n${newKek()}`;
    await using kms = await startKms({ kek });
    await using other = await startKms({ dataDir: kms.dataDir, kek });
    const services = [await KeyCalls.of(kms), await KeyCalls.of(other)] as const;
    const rotateKek = kekRotator(kms, kek);
    const random = randomOf(seed);
    const kinds = Array.from({ length: 100 }, (_, index): Kind => {
      // Near the end, so that there is a key to destroy and some calls come too late.
      if (index > 70 && index % 10 === 3) return 'shred';
      return WEIGHTED[Math.floor(random() * WEIGHTED.length)] ?? 'export';
    });
    let now = 0;
    const history: Operation[] = [];
    const queue = [...kinds.entries()];
    let ciphertext = '';
    const perform = async (index: number, chosen: Kind): Promise<void> => {
      const kind = chosen === 'decrypt' && ciphertext === '' ? 'encrypt' : chosen;
      const invokedAt = ++now;
      const answer = await CALLS[kind](services[index % 2 === 0 ? 0 : 1], ciphertext);
      const { code, ciphertext_b64, revision, ...others } = answer.json();
      ciphertext = ciphertext_b64 ?? ciphertext;
      // A decryption reports the version of its ciphertext, whatever the current one.
      const version = kind === 'decrypt' ? undefined : others.version;
      history.push({ kind, invokedAt, answeredAt: ++now, code, version, revision });
    };
    const worker = async (): Promise<void> => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        // Concurrent KEK rotations must be invisible.
        if (next[0] % 30 === 15) await rotateKek();
        await perform(...next);
      }
    };
    await Promise.all(Array.from({ length: kinds.length }, worker));
    // All calls were concurrent, so destructions may have come before the key existed.
    for (const [index, kind] of (['create', 'shred', 'export'] as const).entries())
      await perform(index, kind);

    expect(history).toHaveLength(103);
    expect(isLinearizable(ABSENT, history, step)).toBe(true);
    // In the chain, too, no release follows the destruction of the key or comes while it is disabled.
    let state: State | 'absent' = 'absent';
    for (const { action, outcome, detail } of await kms.records()) {
      if (action === 'key.create' || action === 'key.enable') state = 'enabled';
      if (action === 'key.disable' || action === 'key.restore') state = 'disabled';
      if (action === 'key.schedule_deletion') state = 'pending_deletion';
      if (action === 'key.destroy') state = 'destroyed';
      if (action === 'key.export' && outcome === 'allowed') expect(state).toBe('enabled');
      // The first use of a minute; the count of later uses may come later.
      if (/^key\.(en|de)crypt$/.test(action) && detail?.['since'] === undefined && outcome === 'allowed')
        expect(state).toBe('enabled');
    }
    expect(state).toBe('destroyed');
    expect((await kms.records()).filter(({ action }) => action === 'kek.rotate')).toHaveLength(3);
    expect(await kms.verify()).toMatchObject({ intact: true });
  });
});

describe('the checker', () => {
  const at = (
    invokedAt: number,
    answeredAt: number,
    kind: Kind,
    more: Partial<Operation> = {},
  ): Operation => ({
    invokedAt,
    answeredAt,
    kind,
    code: undefined,
    version: undefined,
    revision: undefined,
    ...more,
  });
  const made = at(1, 2, 'create', { version: 1, revision: 1 });

  it('accepts an export that overlaps a disabling, before it or after it', () => {
    for (const code of [undefined, 'key_disabled'])
      expect(isLinearizable(ABSENT, [made, at(3, 6, 'disable'), at(4, 5, 'export', { code })], step)).toBe(
        true,
      );
  });

  it('rejects a decryption after a destruction was answered, and an encryption under an older version', () => {
    const gone = at(3, 4, 'shred', { revision: 2 });
    expect(isLinearizable(ABSENT, [made, gone, at(5, 6, 'decrypt')], step)).toBe(false);
    expect(isLinearizable(ABSENT, [made, gone, at(5, 6, 'decrypt', { code: 'key_destroyed' })], step)).toBe(
      true,
    );
    const rotated = at(3, 4, 'rotate', { version: 2, revision: 2 });
    expect(isLinearizable(ABSENT, [made, rotated, at(5, 6, 'encrypt', { version: 1 })], step)).toBe(false);
  });

  it('rejects an export after the answer to a disabling', () => {
    expect(isLinearizable(ABSENT, [made, at(3, 4, 'disable'), at(5, 6, 'export')], step)).toBe(false);
  });

  it('rejects two creations of the same key, a version that was never created, and a lost change', () => {
    expect(isLinearizable(ABSENT, [made, at(1, 2, 'create', { revision: 1 })], step)).toBe(false);
    expect(isLinearizable(ABSENT, [made, at(3, 4, 'rotate', { version: 3 })], step)).toBe(false);
    const twice = [at(3, 5, 'rotate', { version: 2, revision: 2 }), at(4, 6, 'disable', { revision: 2 })];
    expect(isLinearizable(ABSENT, [made, ...twice], step)).toBe(false);
  });
});
