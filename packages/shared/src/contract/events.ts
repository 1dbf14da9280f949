import { z } from 'zod';
import { keyNameSchema } from './keys.ts';

/** Key events that BunKMS pushes to services. They have the names of their audit records. */
export const KEY_EVENTS = [
  'key.rotate',
  'key.attach',
  'key.detach',
  'key.enable',
  'key.disable',
  'key.schedule_deletion',
  'key.restore',
  'key.destroy',
  'key.destroy_version',
  'key.update',
  'key.recover',
  'key.accept',
  'key.take_over',
  'key.deletion_intent',
] as const;

/**
 * An event of `GET /v1/events`, with its SSE `event` as `type` in addition to the members of its `data`
 * (`docs/formats/events.md`).
 *
 * `reset`: earlier events are unknown, so nothing cached may be trusted. The keys that were withdrawn
 * lately, and the revoked tokens that have not expired, follow. `heartbeat`: nothing happened up to the place
 * in its id.
 */
export const kmsEventSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.enum(KEY_EVENTS),
    name: keyNameSchema,
    version: z.int().positive().optional(),
    holder: z.uuid().optional(),
  }),
  /**
   * A storage has another generation, after a start or by an administrator. Copies without this generation
   * must stop.
   */
  z.object({ type: z.literal('storage.take_over'), storage: z.uuid(), generation: z.uuid().optional() }),
  /** A token and its whole family are revoked; `expires_at` is the token's. */
  z.object({
    type: z.literal('token.revoke'),
    jti: z.uuid(),
    family: z.uuid(),
    expires_at: z.iso.datetime().optional(),
  }),
  z.object({ type: z.literal('reset') }),
  z.object({ type: z.literal('heartbeat') }),
]);
export type KmsEvent = z.infer<typeof kmsEventSchema>;

/**
 * Longest interval between events of a stream, milliseconds. A stream that is silent for three times as long
 * is dead.
 */
export const HEARTBEAT_MS = 5_000;
