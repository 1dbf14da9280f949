import type { JsonObject } from '@bundoc/shared/json/tree';
import { type Patch, patchSteps } from '../documents/patch/read-patch.ts';

/** {@link patchSteps} without a pause. */
export function patched(own: JsonObject, patch: Patch, bytesMax: number): JsonObject {
  const steps = patchSteps(own, patch, bytesMax);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}
