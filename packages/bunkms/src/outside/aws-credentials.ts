import { readFileSync } from 'node:fs';
import { readOwn } from './http-agent.ts';
import { OutsideKeyError } from './port.ts';

export interface AwsCredentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

/** Neither may be empty, or break a header. */
const VALUE = /^[\x21-\x7e]{1,8192}$/;

/**
 * Reads access keys from a file in the shared credentials format of AWS: sections such as `[default]`, with
 * lines `aws_access_key_id = …`, `aws_secret_access_key = …` and `aws_session_token = …`. Other settings have
 * no effect.
 *
 * @throws OutsideKeyError `unavailable`. It quotes no values.
 */
export function readAwsCredentials(file: string, profile: string): AwsCredentials {
  const text = readOwn('credentials_file', file, () => readFileSync(file, 'utf8'));
  const values = new Map<string, string>();
  let section: string | undefined;
  for (const line of text.split(/\r?\n/)) {
    section = /^\s*\[\s*([^\]]*?)\s*\]/.exec(line)?.[1] ?? section;
    const [, name, value] = /^\s*(aws_\w+)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    if (section === profile && name !== undefined && value !== undefined) values.set(name, value);
  }
  const usable = (name: string) => {
    const value = values.get(name);
    return value !== undefined && VALUE.test(value) ? value : undefined;
  };
  const accessKeyId = usable('aws_access_key_id');
  const secretAccessKey = usable('aws_secret_access_key');
  if (accessKeyId === undefined || secretAccessKey === undefined)
    throw new OutsideKeyError('unavailable', `credentials_file: ${file} holds no keys of [${profile}]`, {
      remedy:
        'put aws_access_key_id and aws_secret_access_key below that line, or correct profile in the entry',
    });
  const sessionToken = usable('aws_session_token');
  return { accessKeyId, secretAccessKey, ...(sessionToken !== undefined && { sessionToken }) };
}
