export interface AwsCredentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

/** Neither may be empty, or break a header. */
const VALUE = /^[\x21-\x7e]{1,8192}$/;

/**
 * Access keys from a file in the shared credentials format of AWS: sections such as `[default]`, with lines
 * `aws_access_key_id = …`, `aws_secret_access_key = …` and `aws_session_token = …`. Other settings have no
 * effect.
 *
 * @returns undefined when the section has no usable keys.
 */
export function parseAwsCredentials(text: string, profile: string): AwsCredentials | undefined {
  const values = new Map<string, string>();
  let section: string | undefined;
  for (const line of text.split(/\r?\n/)) {
    section = /^\s*\[\s*([^\]]*?)\s*\]/.exec(line)?.[1] ?? section;
    const [, name, value] = /^\s*(aws_\w+)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    if (section === profile && name !== undefined && value !== undefined) values.set(name, value);
  }
  return awsCredentialsOf((name) => values.get(name));
}

/**
 * Access keys by the names of their parts, such as `aws_secret_access_key`.
 *
 * @returns undefined when one is missing or unusable.
 */
export function awsCredentialsOf(read: (name: string) => string | undefined): AwsCredentials | undefined {
  const [accessKeyId, secretAccessKey, sessionToken] = [
    'aws_access_key_id',
    'aws_secret_access_key',
    'aws_session_token',
  ].map((name) => {
    const value = read(name);
    return value !== undefined && VALUE.test(value) ? value : undefined;
  });
  if (accessKeyId === undefined || secretAccessKey === undefined) return undefined;
  return { accessKeyId, secretAccessKey, ...(sessionToken !== undefined && { sessionToken }) };
}
