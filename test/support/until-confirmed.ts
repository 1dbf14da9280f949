import { get as getPlain } from 'node:http';
import { get as getOverTls } from 'node:https';
import { json } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';

interface Ready {
  readonly reason?: string;
  readonly kms: string;
}

/** Waits until BunKMS has confirmed or refused the storage of a running Bundoc, or is down. */
export async function untilConfirmed(url: string): Promise<void> {
  const deadline = Date.now() + PATIENT_MS;
  for (;;) {
    const { reason, kms } = await readiness(new URL('/ready', url));
    if (reason !== 'kms_unavailable' || kms === 'down') return;
    if (Date.now() > deadline) throw new Error('BunKMS has not confirmed the storage');
    await sleep(5);
  }
}

/** The certificate is not verified, because the request neither sends nor receives a secret. */
function readiness(url: URL): Promise<Ready> {
  return new Promise((resolve, reject) => {
    const get = url.protocol === 'https:' ? getOverTls : getPlain;
    get(url, { rejectUnauthorized: false, agent: false }, (response) => {
      json(response).then((ready) => resolve(ready as Ready), reject);
    }).on('error', reject);
  });
}
