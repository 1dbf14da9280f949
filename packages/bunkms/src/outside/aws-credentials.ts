import { readFileSync } from 'node:fs';
import { type AwsCredentials, parseAwsCredentials } from '@bundoc/shared/aws/credentials';
import { readOwn } from './http-agent.ts';
import { OutsideKeyError } from './port.ts';

/**
 * Reads access keys from a file in the shared credentials format of AWS.
 *
 * @throws OutsideKeyError `unavailable`. It quotes no values.
 */
export function readAwsCredentials(file: string, profile: string): AwsCredentials {
  const text = readOwn('credentials_file', file, () => readFileSync(file, 'utf8'));
  const credentials = parseAwsCredentials(text, profile);
  if (credentials !== undefined) return credentials;
  throw new OutsideKeyError('unavailable', `credentials_file: ${file} holds no keys of [${profile}]`, {
    remedy:
      'put aws_access_key_id and aws_secret_access_key below that line, or correct profile in the entry',
  });
}
