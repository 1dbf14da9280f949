import { existsSync, statSync } from 'node:fs';
import { counted } from '@bundoc/shared/cli/counted';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { defined } from '@bundoc/shared/contract/defined';
import { openFileSource } from '@bundoc/shared/files/file-source';
import { createPrivateFile } from '@bundoc/shared/files/private-file';
import type { Environment } from '@bundoc/shared/process/config';
import { systemClock } from '@bundoc/shared/runtime/clock';
import { CLI_CALLER } from '../records/caller.ts';
import { isSound, type Survey, surveyArchive } from '../recovery/survey.ts';
import { createBackup } from '../recovery/write-backup.ts';
import { CliFailure, EXIT } from './errors.ts';
import { loadVault, withKms } from './open-kms.ts';

/**
 * Writes an encrypted archive of the whole store while the server may run. The file appears complete and
 * durable, or not at all.
 *
 * @throws CliFailure when the file exists already, or, after writing the file, when something in the store
 *   is damaged.
 */
export async function backup(environment: Environment, file: string, options: JsonOption): Promise<void> {
  if (existsSync(file)) throw fileExists(file);
  const facts = await withKms(environment, async ({ store, vault, state: { chainKey } }) => {
    using progress = createProgress('{bar} {value}/{total} entries, {eta_formatted} left');
    const { keys, tokens } = await store.counts();
    progress.start((await store.auditHead()).seq + keys + tokens);
    const deps = { store, vault, chainKey, clock: systemClock };
    const made = await createBackup(deps, CLI_CALLER, (entries) => progress.update(entries));
    if (!(await createPrivateFile(file, made.bytes))) throw fileExists(file);
    return made.facts();
  });
  const { audit, records, keys, tokens, chain_fault: fault, left_out: leftOut } = facts;
  print(options, { file, bytes: statSync(file).size, ...facts }, () => [
    `${file}: ${contentOf({ keys, tokens, records })}`,
    `audit: ${audit.seq}:${audit.hash}`,
  ]);
  if (leftOut.length > 0)
    throw new CliFailure(`written, without the damaged parts of the store: ${leftOut.join(', ')}`);
  if (fault !== undefined)
    throw new CliFailure(`written, but the audit chain is broken: record ${fault.seq} is ${fault.reason}`);
}

function contentOf({ keys, tokens, records }: Record<'keys' | 'tokens' | 'records', number>): string {
  return [counted(keys, 'key'), counted(tokens, 'token'), counted(records, 'audit record')].join(', ');
}

function fileExists(file: string): CliFailure {
  const isFolder = statSync(file, { throwIfNoEntry: false })?.isDirectory() === true;
  const fault = isFolder ? `${file} is a folder: name a file in it` : `the file ${file} exists already`;
  return new CliFailure(fault, EXIT.conflict);
}

/**
 * Checks a backup completely; needs the KEK but no store.
 *
 * @throws CliFailure when something in it would not work after a restore; DamagedFile, MissingKek.
 */
export async function verifyBackup(
  environment: Environment,
  file: string,
  options: JsonOption,
): Promise<void> {
  const survey = await surveyFile(environment, file);
  const { head, end, chainFault, kekIds, findings } = survey;
  const { id, created_at } = head;
  const facts = { ok: isSound(survey), id, created_at, ...end, kek_ids: kekIds };
  print(options, { ...facts, ...defined({ chain_fault: chainFault }), findings }, () => [
    ...findings.map(
      ({ key, version, problem }) => `${key}${version === undefined ? '' : ` version ${version}`} ${problem}`,
    ),
    ...(chainFault === undefined
      ? []
      : [`the audit chain is broken: record ${chainFault.seq} is ${chainFault.reason}`]),
    `${contentOf(end)} of ${created_at}`,
    `audit: ${end.audit.seq}:${end.audit.hash}`,
    `KEKs: ${kekIds.join(' ')}`,
  ]);
  if (!isSound(survey))
    throw new CliFailure('the backup file is intact, but something in it is damaged or cannot be opened');
}

async function surveyFile(environment: Environment, file: string): Promise<Survey> {
  const vault = await loadVault(environment);
  await using source = await openFileSource(file);
  using progress = createProgress('checking {bar} {percentage}%, {eta_formatted} left');
  progress.start(source.sizeBytes);
  return await surveyArchive(vault, source, { onProgress: (bytes) => progress.update(bytes) });
}
