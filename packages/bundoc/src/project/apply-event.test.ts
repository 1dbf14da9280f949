import { KEY_EVENTS, type KmsEvent } from '@bundoc/shared/contract/events';
import { describe, expect, it } from 'vitest';
import { applyEvent } from './apply-event.ts';

/** What an event makes happen, in order. */
function effectsOf(event: KmsEvent): string[] {
  const effects: string[] = [];
  const note = (what: string) => (target?: unknown) => {
    effects.push(typeof target === 'string' ? `${what} ${target}` : what);
  };
  applyEvent(event, {
    keys: { revalidate: note('revalidate'), revalidateAll: note('revalidate all'), evict: note('evict') },
    instances: { sweep: note('sweep') },
    revoked: { add: note('revoke') },
    feed: { end: note('end feed of') },
  });
  return effects;
}

describe('an event of BunKMS', () => {
  it.each(KEY_EVENTS)('%s has its effect on the project of the key', (type) => {
    const effects =
      type === 'key.rotate'
        ? ['revalidate p']
        : type === 'key.enable'
          ? []
          : ['evict p', 'sweep', 'end feed of p'];
    expect(effectsOf({ type, name: 'p-dek' })).toEqual(effects);
    expect(effectsOf({ type, name: 'no-project' })).toEqual([]);
  });

  it('of another kind has its own', () => {
    expect(effectsOf({ type: 'reset' })).toEqual(['revalidate all']);
    expect(effectsOf({ type: 'heartbeat' })).toEqual([]);
    expect(effectsOf({ type: 'token.revoke', jti: 'a', family: 'b' })).toEqual(['revoke']);
  });
});
