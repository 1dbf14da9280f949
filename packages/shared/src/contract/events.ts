import { z } from 'zod';
import { keyNameSchema } from './keys.ts';

/**
 * What happens to keys and is pushed to services; the names are those of the audit records that they come
 * from.
 */
export const KEY_EVENTS = [
  'key.rotate',
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
 * An event of `GET /v1/events`, with its SSE `event` as `type` beside the members of its `data`
 * (`docs/formats/events.md`).
 *
 * `reset`: earlier events are unknown; nothing that is cached may be trusted, and the revoked tokens
 * that have not expired follow. `heartbeat`: nothing happened, up to the place that its id names.
 */
export const kmsEventSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.enum(KEY_EVENTS),
    name: keyNameSchema,
    version: z.int().positive().optional(),
    holder: z.uuid().optional(),
  }),
  /**
   * A storage is in another generation, by a start or by an administrator: a copy that has none of it must
   * stop.
   */
  z.object({ type: z.literal('storage.take_over'), storage: z.uuid(), generation: z.uuid().optional() }),
  /** The token and all of its family; `expires_at` is the token's. */
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
 * How often a stream says something at least, milliseconds; one that is silent for three times as long is
 * dead.
 */
export const HEARTBEAT_MS = 5_000;
