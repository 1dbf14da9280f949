import { STALLED_TIMEOUT_MS } from '@bundoc/shared/http/server';
import { expect, it } from 'vitest';
import { HEARTBEAT_MS } from '../service/change-feed.ts';
import { WAIT_S_MAX } from './changes.ts';

it("nothing that waits for changes is silent for as long as its connection's idle timeout", () => {
  expect(WAIT_S_MAX * 1_000).toBeLessThan(STALLED_TIMEOUT_MS - 5_000);
  expect(HEARTBEAT_MS).toBeLessThan(STALLED_TIMEOUT_MS / 2);
});
