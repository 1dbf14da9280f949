import { readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { CommandError } from '@bundoc/shared/cli/errors';
import { TOKEN_LENGTH_MAX } from '@bundoc/shared/contract/tokens';
import { replacePrivateFile } from '@bundoc/shared/files/private-file';
import { parseJson } from '@bundoc/shared/json/parse-json';
import type { Environment } from '@bundoc/shared/process/config';
import { z } from 'zod';

/** A service, and the token to use there and nowhere else. */
export const profileSchema = z.strictObject({
  url: z.url({ protocol: /^https?$/ }),
  token: z.string().min(1).max(TOKEN_LENGTH_MAX),
  /** The absolute path of the certificate authorities; those of the system when absent. */
  ca_file: z.string().min(1).optional(),
});
export type Profile = z.infer<typeof profileSchema>;

const nameSchema = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/);
const fileSchema = z.strictObject({ format: z.literal(1), profiles: z.record(nameSchema, profileSchema) });

/** The path of the profiles, in the user's settings folder. */
export function profilesFile({ XDG_CONFIG_HOME, APPDATA, HOME }: Environment): string {
  const settings =
    XDG_CONFIG_HOME || (process.platform === 'win32' && APPDATA) || join(HOME || homedir(), '.config');
  return join(settings, 'bundoc', 'profiles.json');
}

/** The name of the profile to use. @throws CommandError when it is not one. */
export function profileName(environment: Environment, options: { readonly profile?: string }): string {
  const name = options.profile ?? (environment['BUNDOC_PROFILE'] || 'default');
  if (!nameSchema.safeParse(name).success)
    throw new CommandError(`"${name}" is not a profile name: use 1 to 64 of A-Z a-z 0-9 _ -`);
  return name;
}

/**
 * All profiles by name; none without a file.
 *
 * @throws CommandError when other users may read the file, or it is damaged.
 */
export async function readProfiles(environment: Environment): Promise<ReadonlyMap<string, Profile>> {
  const path = profilesFile(environment);
  let text: string;
  try {
    const { mode } = await stat(path);
    if (process.platform !== 'win32' && (mode & 0o077) !== 0)
      throw new CommandError(`others may read the tokens in ${path}: run "chmod 600 ${path}"`);
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Map();
    throw error;
  }
  const file = fileSchema.safeParse(parseJson(text));
  if (!file.success) throw new CommandError(`${path} cannot be read: remove it, and run "bundoc login"`);
  return new Map(Object.entries(file.data.profiles));
}

/** Replaces the whole file, readable by the user only. */
export async function writeProfiles(
  environment: Environment,
  profiles: ReadonlyMap<string, Profile>,
): Promise<void> {
  const file = { format: 1, profiles: Object.fromEntries(profiles) };
  await replacePrivateFile(profilesFile(environment), `${JSON.stringify(file, undefined, 2)}\n`);
}
