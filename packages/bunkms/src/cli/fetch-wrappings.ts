import { setTimeout as sleep } from 'node:timers/promises';
import { askService, below, type Trust } from '@bundoc/shared/cli/ask-service';
import { type BundocOptions, bundocAccess, ownBundocUrl, tokenText } from '@bundoc/shared/cli/bundoc-access';
import { counted } from '@bundoc/shared/cli/counted';
import { createProgress } from '@bundoc/shared/cli/progress';
import { readText } from '@bundoc/shared/cli/read-text';
import { LEASE_TTL_MS, projectOfDek } from '@bundoc/shared/contract/keys';
import { formatError } from '@bundoc/shared/logs/error-line';
import type { Environment } from '@bundoc/shared/process/config';
import { CliFailure, UsageError } from './errors.ts';

/** A running Bundoc, with the token and trust for requests. */
interface Bundoc {
  readonly url: URL;
  readonly token: string;
  readonly trust: Trust;
}

/** An open project has its key for at most a lease, and adopts the new wrapping before the lease ends. */
const FETCHED_WITHIN_MS = LEASE_TTL_MS;
const POLL_MS = 5_000;
/** Opening a cold project may read a large catalog. */
const OPENED_WITHIN_MS = 60_000;

/** Codes after which a later try may succeed. */
const PASSING: ReadonlySet<string> = new Set([
  'rate_limited',
  'overloaded',
  'project_moving',
  'kms_unavailable',
  'storage_unavailable',
]);

/** @throws UsageError without a usable URL or token. */
export async function bundocOf(environment: Environment, options: BundocOptions): Promise<Bundoc> {
  const { url = ownBundocUrl(environment), token, caFile } = bundocAccess(environment, options);
  if (!URL.canParse(url) || !/^https?:/.test(url))
    throw new UsageError(`"${url}" is not an http or https URL of Bundoc`);
  if (!token)
    throw new UsageError(
      '--fetch needs a token for Bundoc with docs:read: --token-file, BUNDOC_TOKEN_FILE or BUNDOC_TOKEN',
    );
  const trust = caFile === undefined ? {} : { ca: await readText(caFile) };
  return { url: new URL(url), token: await tokenText(token), trust };
}

/**
 * Makes Bundoc open the project of each key, which fetches the key and stores its new wrapping. It repeats
 * that until no key is left or none can be fetched. Open projects adopt the new wrapping automatically,
 * within the lease of their key.
 *
 * @param unfetched returns the keys that are left.
 * @throws CliFailure when Bundoc does not answer, or refuses the token.
 */
export async function fetchWrappings(
  bundoc: Bundoc,
  unfetched: () => Promise<readonly string[]>,
): Promise<void> {
  using progress = createProgress('fetching {bar} {value}/{total} keys');
  const endMs = performance.now() + FETCHED_WITHIN_MS;
  let left = await unfetched();
  const total = left.length;
  if (total > 0)
    console.error(
      `bunkms: Bundoc fetches the new wrappings of ${counted(total, 'key')}: those of open projects within ${FETCHED_WITHIN_MS / 60_000} minutes`,
    );
  progress.start(total);
  /** Keys whose project this Bundoc does not have. */
  const elsewhere = new Map<string, string>();
  for (let isFirst = true; left.length > 0 && performance.now() < endMs; isFirst = false) {
    if (!isFirst) await sleep(POLL_MS);
    for (const key of left) {
      const problem = await open(bundoc, key);
      if (problem === undefined) continue;
      elsewhere.set(key, problem);
    }
    left = (await unfetched()).filter((key) => !elsewhere.has(key));
    progress.update(total - left.length - elsewhere.size);
  }
  for (const [key, problem] of elsewhere) console.error(`bunkms: ${key} was not fetched: ${problem}`);
  if (left.length > 0)
    console.error(
      `bunkms: not fetched within ${FETCHED_WITHIN_MS / 60_000} minutes: ${counted(left.length, 'key')}`,
    );
}

/**
 * @returns why a project cannot be opened there; undefined when it was opened, or may be later.
 *
 * @throws CliFailure
 */
async function open({ url, token, trust }: Bundoc, key: string): Promise<string | undefined> {
  const project = projectOfDek(key);
  if (project === undefined) return 'it is not the key of a project';
  const answer = await askService(
    below(url, `/v1/projects/${project}`),
    trust,
    { authorization: `Bearer ${token}` },
    OPENED_WITHIN_MS,
  ).catch((error: unknown) => {
    throw new CliFailure(`Bundoc does not answer at ${url.origin}: ${formatError(error)}`);
  });
  if (answer.status === 401)
    throw new CliFailure('Bundoc refuses the token: "bunkms token inspect" explains it');
  if (answer.status === 403 && answer.body['code'] === 'forbidden')
    throw new CliFailure('the token may not open every project: it needs docs:read for projects "*"');
  const isPassing = answer.status === 200 || PASSING.has(String(answer.body['code']));
  return isPassing ? undefined : String(answer.body['title'] ?? `Bundoc answers ${answer.status}`);
}
