import { z } from 'zod';
import type { RouteAnswer } from './description.ts';

/** What `/metrics` of every service answers. */
export const METRICS_ANSWER: RouteAnswer = {
  description: 'Text in the exposition format of Prometheus',
  schema: z.string(),
  contentType: 'text/plain',
};
