import { z } from 'zod';

/** What answers at an address, in the answer of `/ready`. Older versions do not say it. */
export const answeringSchema = z.enum(['bundoc', 'bunkms', 'bunkms-internal']);
export type Answering = z.infer<typeof answeringSchema>;

/** The answer of `GET /` to a client that accepts JSON: the service, and links to its pages. */
export const serviceInfoSchema = z.object({
  service: z.enum(['bundoc', 'bunkms']),
  version: z.string(),
  links: z.object({
    /** Absent when the console is turned off. */
    console: z.literal('/console/').optional(),
    openapi: z.literal('/openapi.json'),
    reference: z.literal('/docs'),
    health: z.literal('/health'),
    ready: z.literal('/ready'),
  }),
});
export type ServiceInfo = z.infer<typeof serviceInfoSchema>;
