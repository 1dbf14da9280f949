import type { Command } from 'commander';

/** Adds the options that select a running service and the output format. */
export function serviceOptions(command: Command): Command {
  return command
    .option(
      '--url <url>',
      'URL of the service; BUNDOC_URL, else that of the profile, or http://127.0.0.1:8080',
    )
    .option('--token-file <file>', 'a token for it; BUNDOC_TOKEN_FILE, or the token itself in BUNDOC_TOKEN')
    .option('--profile <name>', 'a profile of "bundoc login"; BUNDOC_PROFILE, or "default"')
    .option('--ca-file <file>', 'the authority of its certificate; BUNDOC_CA_FILE, or those of the system')
    .option('--json', 'print JSON');
}
