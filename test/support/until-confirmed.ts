import { setTimeout as sleep } from 'node:timers/promises';
import { PATIENT_MS } from '@bundoc/shared/testing/patient';

/** Waits until BunKMS has confirmed the storage of a Bundoc that listens, or refused it; or does not answer that Bundoc. */
export async function untilConfirmed(url: string): Promise<void> {
  const deadline = Date.now() + PATIENT_MS;
  for (;;) {
    const answer = await fetch(new URL('/ready', url));
    const { reason, kms } = (await answer.json()) as { reason?: string; kms: string };
    if (reason !== 'kms_unavailable' || kms === 'down') return;
    if (Date.now() > deadline) throw new Error('BunKMS has not confirmed the storage');
    await sleep(5);
  }
}
