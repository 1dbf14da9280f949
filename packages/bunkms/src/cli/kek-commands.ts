import { kekIdSchema } from '@bundoc/shared/contract/kek';
import type { Environment } from '@bundoc/shared/runtime/config';
import { type Command, InvalidArgumentError } from 'commander';
import { kekList, kekRetire, kekRotate, kekShow, kekUnfetched, kekVerify } from './kek.ts';

/** `bunkms kek …`: the key encryption keys and their rotation. No command accepts or shows a KEK. */
export function registerKekCommands(program: Command, environment: Environment): void {
  const kek = program.command('kek').description('key encryption keys; named by their ids');
  const command = (name: string, description: string) =>
    kek.command(name).description(description).option('--json', 'print JSON');

  command('status', 'shows the current KEK and the progress of a rotation').action(
    (options: Parameters<typeof kekShow>[1]) => kekShow(environment, options),
  );
  command('list', 'all KEKs, and what is wrapped with each').action(
    (options: Parameters<typeof kekList>[1]) => kekList(environment, options),
  );
  command('rotate', 'makes the staged or the named KEK current, and wraps everything with it')
    .argument('[kek-id]', 'a KEK of the ring', kekId)
    .option('--no-wait', 'leave the wrapping to the running server')
    .action((id: string | undefined, options: Parameters<typeof kekRotate>[2]) =>
      kekRotate(environment, id, options),
    );
  command('verify', 'unwraps every version of every key; exit code 1 names what does not open').action(
    (options: Parameters<typeof kekVerify>[1]) => kekVerify(environment, options),
  );
  command('unfetched', 'lists keys whose holders may have copies that only a former KEK opens')
    .argument('<kek-id>', 'that KEK', kekId)
    .action((id: string, options: Parameters<typeof kekUnfetched>[2]) =>
      kekUnfetched(environment, id, options),
    );
  command('retire', 'retires a KEK, once nothing is wrapped with it')
    .argument('<kek-id>', 'that KEK', kekId)
    .option(
      '--fetch',
      'first have Bundoc open the projects of those keys to fetch the new wrappings; takes 15 minutes at most',
    )
    .option('--url <url>', 'of Bundoc, for --fetch; BUNDOC_URL, or http://127.0.0.1:8080')
    .option(
      '--token-file <file>',
      'a token for it with docs:read; BUNDOC_TOKEN_FILE, or the token in BUNDOC_TOKEN',
    )
    .option('--ca-file <file>', 'the authority of its certificate; BUNDOC_CA_FILE, or those of the system')
    .option('--accept-unfetched', 'even if "kek unfetched" lists keys')
    .option('--accept-damaged', 'even if damaged versions are wrapped with it')
    .action((id: string, options: Parameters<typeof kekRetire>[2]) => kekRetire(environment, id, options));
}

function kekId(text: string): string {
  const id = kekIdSchema.safeParse(text);
  if (!id.success) throw new InvalidArgumentError(String(id.error.issues[0]?.message));
  return id.data;
}
