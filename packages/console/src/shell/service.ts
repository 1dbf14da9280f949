/** The differences between the two consoles in the bundle. */
export interface Service {
  readonly name: 'Bundoc' | 'BunKMS';
  readonly audience: 'bundoc' | 'bunkms';
  /** A description of the service for newcomers. */
  readonly about: readonly [string, string];
  /** A command that prints a token to try the console. */
  readonly tokenCommand: string;
  readonly other: string;
}

export const BUNDOC: Service = {
  name: 'Bundoc',
  audience: 'bundoc',
  about: [
    'A document store that seals every document with its project’s own AES-256 key before it touches a disk.',
    'The keys come from BunKMS. When a project’s key is destroyed, no copy of the project in any backup can be decrypted.',
  ],
  tokenCommand:
    'npm run -s token -- --typ client --sub me --scope "docs:read docs:write docs:admin" --project "*"',
  other: 'This is a token for BunKMS. Paste it into BunKMS’s console.',
};

export const BUNKMS: Service = {
  name: 'BunKMS',
  audience: 'bunkms',
  about: [
    'The key service of Bundoc. It keeps one AES-256 key for each project, wrapped by a key that never leaves the service.',
    'It releases keys only to trusted services, and records each release in a tamper-evident chain.',
  ],
  tokenCommand:
    'npm run -s token -- --typ service --sub me --scope "kms:read_key kms:rotate_key kms:manage_key kms:manage_kek kms:audit kms:admin" --keys "*" --ttl 1h',
  other: 'This is a token for Bundoc. Paste it into Bundoc’s console.',
};
