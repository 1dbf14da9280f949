import { kekIdSchema } from '@bundoc/shared/contract/kek';
import type { Environment } from '@bundoc/shared/runtime/config';
import { type Command, InvalidArgumentError } from 'commander';
import { kekList, kekRetire, kekRotate, kekShow, kekUnfetched, kekVerify } from './kek.ts';

/** `bunkms kek …`: the key encryption keys and their rotation. No command takes or shows a KEK. */
export function registerKekCommands(program: Command, environment: Environment): void {
  const kek = program.command('kek').description('key encryption keys; named by their ids');
  const command = (name: string, description: string) =>
    kek.command(name).description(description).option('--json', 'print JSON');

  command('status', 'which KEK is the current one, and how far a rotation has come').action(
    (options: Parameters<typeof kekShow>[1]) => kekShow(environment, options),
  );
  command('list', 'all KEKs, and what is wrapped with each').action(
    (options: Parameters<typeof kekList>[1]) => kekList(environment, options),
  );
  command(
    'rotate',
    'makes the staged KEK, or the one that is named, the current one, and wraps everything with it',
  )
    .argument('[kek-id]', 'a KEK of the ring', kekId)
    .option('--no-wait', 'leave the wrapping to the running server')
    .action((id: string | undefined, options: Parameters<typeof kekRotate>[2]) =>
      kekRotate(environment, id, options),
    );
  command('verify', 'unwraps every version of every key; exit code 1 names what does not open').action(
    (options: Parameters<typeof kekVerify>[1]) => kekVerify(environment, options),
  );
  command('unfetched', 'keys whose holders may have copies that are wrapped with a former KEK alone')
    .argument('<kek-id>', 'that KEK', kekId)
    .action((id: string, options: Parameters<typeof kekUnfetched>[2]) =>
      kekUnfetched(environment, id, options),
    );
  command('retire', 'says that a KEK is not needed any more, once nothing is wrapped with it')
    .argument('<kek-id>', 'that KEK', kekId)
    .option(
      '--fetch',
      'first have Bundoc open the projects of those keys, so that it takes up their new wrappings; until none is left, 15 minutes at most',
    )
    .option('--url <url>', 'of Bundoc, for --fetch; BUNDOC_URL, or http://127.0.0.1:8080')
    .option(
      '--token-file <file>',
      'a token for it with docs:read; BUNDOC_TOKEN_FILE, or the token in BUNDOC_TOKEN',
    )
    .option('--ca-file <file>', 'the authority of its certificate; BUNDOC_CA_FILE, or those of the system')
    .option('--accept-unfetched', 'also while keys are listed by "kek unfetched"')
    .option('--accept-damaged', 'also while versions that do not open are wrapped with it')
    .action((id: string, options: Parameters<typeof kekRetire>[2]) => kekRetire(environment, id, options));
}

function kekId(text: string): string {
  const id = kekIdSchema.safeParse(text);
  if (!id.success) throw new InvalidArgumentError(String(id.error.issues[0]?.message));
  return id.data;
}
