import { KEY_EVENTS, type KmsEvent } from '@bundoc/shared/contract/events';
import { describe, expect, it } from 'vitest';
import { applyEvent } from './apply-event.ts';

/** The effects of an event, in order. */
function effectsOf(event: KmsEvent): string[] {
  const effects: string[] = [];
  const note = (what: string) => (target?: unknown) => {
    effects.push(typeof target === 'string' ? `${what} ${target}` : what);
  };
  applyEvent(event, {
    storage: { id: HERE, tookOver: note('taken over') },
    deletion: { requestCheck: note('check for deletions') },
    keys: {
      revalidate: note('revalidate'),
      revalidateAll: note('revalidate all'),
      evict: note('evict'),
      expectOutside: note('expect an outside key of'),
    },
    instances: { sweep: note('sweep') },
    revoked: { add: note('revoke') },
    feed: { end: note('end feed of') },
  });
  return effects;
}

const [HERE, THERE] = ['3c0e2b62-8f5c-4c0e-9a55-0f8f0c9d5a01', 'b6f7a1de-4f0e-4b0a-8e0b-5b6b0b1f4c11'];
const CHECKS = ['check for deletions'];

describe('an event of BunKMS', () => {
  it.each(KEY_EVENTS)("an event of BunKMS of the type %s takes effect on the key's project", (type) => {
    const effects =
      type === 'key.rotate'
        ? ['revalidate p']
        : type === 'key.enable'
          ? []
          : type === 'key.attach'
            ? ['evict p', 'expect an outside key of p', 'sweep', 'end feed of p']
            : ['evict p', 'sweep', 'end feed of p'];
    expect(effectsOf({ type, name: 'p-dek' })).toEqual(effects);
    expect(effectsOf({ type, name: 'no-project' })).toEqual([]);
  });

  it.each(['key.accept', 'key.take_over'] as const)(
    'an event of BunKMS of the type %s closes the project unless this storage is now the holder',
    (type) => {
      expect(effectsOf({ type, name: 'p-dek', holder: HERE })).not.toContain('evict p');
      expect(effectsOf({ type, name: 'p-dek', holder: THERE })).toContain('evict p');
    },
  );

  it('starts a check for unfinished deletions only if it leaves one to this storage', () => {
    for (const type of ['key.deletion_intent', 'key.take_over'] as const) {
      expect(effectsOf({ type, name: 'p-dek', holder: HERE })).toContain(CHECKS[0]);
      expect(effectsOf({ type, name: 'p-dek', holder: THERE })).not.toContain(CHECKS[0]);
    }
    expect(effectsOf({ type: 'key.accept', name: 'p-dek', holder: HERE })).toEqual([]);
    expect(effectsOf({ type: 'key.deletion_intent', name: 'p-dek', holder: HERE })).toContain('evict p');
  });

  it('an event about a take-over concerns only the storage that it names', () => {
    const generation = THERE;
    expect(effectsOf({ type: 'storage.take_over', storage: HERE, generation })).toEqual([
      `taken over ${generation}`,
    ]);
    expect(effectsOf({ type: 'storage.take_over', storage: THERE })).toEqual([]);
  });

  it('an event of BunKMS of any other kind has its own effect', () => {
    expect(effectsOf({ type: 'reset' })).toEqual(['revalidate all', ...CHECKS]);
    expect(effectsOf({ type: 'heartbeat' })).toEqual([]);
    expect(effectsOf({ type: 'token.revoke', jti: 'a', family: 'b' })).toEqual(['revoke']);
  });
});
