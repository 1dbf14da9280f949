import { BoundedKey, type CallOutcome } from './bounded-key.ts';
import type { OutsideEntry } from './entries.ts';
import type { OutsideProvider } from './port.ts';

/** Called at the end of each call of an outside key, with its name and the time in milliseconds. */
export type CallListener = (name: string, outcome: CallOutcome, ms: number) => void;

/** Opens the key of an entry. It asks its provider nothing yet. The caller closes it. */
export async function openOutsideKey(
  name: string,
  entry: OutsideEntry,
  onCall?: CallListener,
): Promise<BoundedKey> {
  return new BoundedKey(name, entry.kind, await providerOf(entry), { onCall: onCall?.bind(undefined, name) });
}

/** Each provider is loaded when it is needed: most installations have none. */
async function providerOf(entry: OutsideEntry): Promise<OutsideProvider> {
  switch (entry.kind) {
    case 'transit': {
      const { TransitKey } = await import('./transit-key.ts');
      return new TransitKey({ ...entry, tokenFile: entry.token_file, caFile: entry.ca_file });
    }
    case 'bunkms': {
      const { BunkmsKey } = await import('./bunkms-key.ts');
      return new BunkmsKey({ ...entry, tokenFile: entry.token_file, caFile: entry.ca_file });
    }
    case 'aws-kms': {
      const { AwsKmsKey } = await import('./aws-kms-key.ts');
      const { key_arn: keyArn, ca_file: caFile, credentials_file: credentialsFile } = entry;
      return await AwsKmsKey.open({ ...entry, keyArn, caFile, credentialsFile });
    }
    case 'pkcs11': {
      const { Pkcs11Key } = await import('./pkcs11-key.ts');
      return new Pkcs11Key({ ...entry, pinFile: entry.pin_file, oaepHash: entry.oaep_hash });
    }
  }
}
