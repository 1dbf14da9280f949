import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { type BundocParts, type RunningBundoc, startBundoc } from '@bundoc/bundoc/app';
import { type BundocConfig, readConfig as readBundocConfig } from '@bundoc/bundoc/config';
import { type RunningBunkms, startBunkms } from '@bundoc/bunkms/app';
import { init } from '@bundoc/bunkms/cli/init';
import { type CliKms, withKms } from '@bundoc/bunkms/cli/open-kms';
import { readConfig as readBunkmsConfig } from '@bundoc/bunkms/config';
import { type IssueToken, type IssueTokenInput, issueTokenSchema } from '@bundoc/shared/contract/tokens';
import { createLogger, type Logger } from '@bundoc/shared/logs/logger';
import { freePort } from '@bundoc/shared/testing/free-port';
import { runs } from '@bundoc/shared/testing/long';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { inject } from 'vitest';
import { runningInstallations } from './running-installations.ts';
import { documentFiles, newStorage, type StoredProjects, storageInFiles } from './stored-projects.ts';
import { TakingTurns } from './taking-turns.ts';
import { noteRefusal, undocumentedErrors } from './undocumented-errors.ts';
import { untilConfirmed } from './until-confirmed.ts';

/** The whole log as one text. */
class LogSink {
  #text = '';

  logger(service: 'bundoc' | 'bunkms'): Logger {
    const destination = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        this.#text += chunk.toString();
        done();
      },
    });
    return createLogger({ service, level: 'trace', destination });
  }

  get text(): string {
    return this.#text;
  }
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  json(): Record<string, unknown>;
}

export interface Call {
  readonly method?: string;
  readonly token?: string | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

/** With LONG_TESTS=1, as many as the test run has. */
const OTHERS_MAX = runs(12, Number.POSITIVE_INFINITY);

/** Other projects whose requests alternate with those of a suite, by the origin of their Bundoc. */
const takingTurns = new Map<string, TakingTurns>();

/** Sends one HTTP request with its exact path, which `fetch` would normalise. */
export async function call(baseUrl: string, path: string, options: Call = {}): Promise<Answer> {
  if (path.startsWith('/v1/projects/')) await takingTurns.get(new URL(baseUrl).origin)?.next();
  return callAlone(baseUrl, path, options);
}

function callAlone(baseUrl: string, path: string, options: Call = {}): Promise<Answer> {
  const { hostname, port } = new URL(baseUrl);
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        hostname,
        port,
        path,
        agent: false,
        method: options.method ?? 'GET',
        headers: {
          ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
          ...(options.body === undefined
            ? {}
            : {
                'content-type': 'application/json',
                'content-length': String(Buffer.byteLength(options.body)),
              }),
          ...options.headers,
        },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          if (Number(response.statusCode) >= 400) noteRefusal(baseUrl, options.method ?? 'GET', path, text);
          resolve({
            status: Number(response.statusCode),
            headers: response.headers,
            text,
            json: () => JSON.parse(text) as Record<string, unknown>,
          });
        });
      },
    );
    request.on('error', reject);
    request.end(options.body);
  });
}

/** Makes Bundoc tolerate a busy machine. Not for tests in which other services do not answer. */
export const PATIENT_BUNDOC = {
  BUNDOC_KMS_DEADLINE_MS: String(PATIENT_MS),
};

/** Settings of both services in a test. */
export type InstallationParts = Pick<
  BundocParts,
  'clock' | 'checkTlsEveryMs' | 'checkGenerationEveryMs' | 'http' | 'wrapDisk'
> & {
  /** Variables for Bundoc. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Settings of Bundoc that have no variable. */
  readonly settings?: Partial<BundocConfig>;
  /** Variables for BunKMS. */
  readonly kmsEnvironment?: Readonly<Record<string, string>>;
  /** Stores in files regardless of the storage of this test run: for a process outside Vitest. */
  readonly isOnFiles?: boolean;
};

/** A store that stays open. {@link withKms} opens one for each token, which takes longer than to issue it. */
class OpenedByCli implements AsyncDisposable {
  readonly kms: Promise<CliKms>;
  readonly #used = Promise.withResolvers<void>();
  readonly #closed: Promise<void>;

  constructor(environment: Readonly<Record<string, string>>) {
    const opened = Promise.withResolvers<CliKms>();
    this.kms = opened.promise;
    this.#closed = withKms(environment, async (kms) => {
      opened.resolve(kms);
      await this.#used.promise;
    }).catch(opened.reject);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#used.resolve();
    await this.#closed;
  }
}

/** A whole installation in this process and a temporary folder: BunKMS, Bundoc, KEK and tokens. */
export class Installation implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'bundoc-e2e-'));
  readonly log = new LogSink();
  readonly kekHex = randomBytes(32).toString('hex');
  readonly tokenFile = join(this.folder, 'kms-token');
  readonly kmsDir = join(this.folder, 'kms');
  readonly dataDir = join(this.folder, 'data');
  #stored: StoredProjects | undefined;
  #kms: RunningBunkms | undefined;
  #bundoc: RunningBundoc | undefined;
  /** The store of the running BunKMS as a command opens it, from the first token on that is issued. */
  #cli: OpenedByCli | undefined;
  /** The port that BunKMS uses again after a restart. */
  #internalPort = 0;
  readonly #parts: InstallationParts;
  /** The number of other projects whose requests alternate with those of the suite. */
  // Scripts that a test starts run outside Vitest.
  readonly #others =
    process.env['VITEST'] === undefined ? 0 : Math.min(inject('otherProjects') ?? 0, OTHERS_MAX);
  #turns: TakingTurns | undefined;

  private constructor(parts: InstallationParts) {
    // Tests cause refusals faster than clients may. `http: {}` has the times of the service.
    this.#parts = { http: { refusalDelayMs: 0 }, ...parts };
  }

  /** Creates the installation and starts both services. */
  static async start(parts: InstallationParts = {}): Promise<Installation> {
    const installation = new Installation(parts);
    installation.#stored = parts.isOnFiles
      ? storageInFiles(installation.dataDir)
      : await newStorage(installation.dataDir);
    installation.#internalPort = await freePort();
    await init(installation.kmsEnvironment, { serviceToken: installation.tokenFile });
    await installation.startKms();
    await installation.startBundoc();
    return installation;
  }

  /** The storage of Bundoc, in files or rows. */
  get stored(): StoredProjects {
    if (this.#stored === undefined) throw new Error('the installation has not begun');
    return this.#stored;
  }

  get url(): string {
    return this.bundoc.url;
  }

  get kms(): RunningBunkms {
    if (this.#kms === undefined) throw new Error('BunKMS is not running');
    return this.#kms;
  }

  get bundoc(): RunningBundoc {
    if (this.#bundoc === undefined) throw new Error('Bundoc is not running');
    return this.#bundoc;
  }

  get kmsEnvironment(): Record<string, string> {
    return {
      BUNKMS_PORT: '0',
      BUNKMS_INTERNAL_PORT: String(this.#internalPort),
      BUNKMS_DATA_DIR: this.kmsDir,
      BUNKMS_KEK: this.kekHex,
      BUNKMS_SQLITE_DEADLINE_MS: String(PATIENT_MS),
      ...this.#parts.kmsEnvironment,
    };
  }

  async startKms(): Promise<void> {
    this.#kms = await startBunkms(readBunkmsConfig(this.kmsEnvironment), {
      ...this.#parts,
      logger: this.log.logger('bunkms'),
    });
  }

  async stopKms(): Promise<void> {
    await this.#cli?.[Symbol.asyncDispose]();
    this.#cli = undefined;
    await this.#kms?.close();
    this.#kms = undefined;
  }

  async startBundoc(): Promise<void> {
    const config = readBundocConfig({
      BUNDOC_PORT: '0',
      ...PATIENT_BUNDOC,
      ...this.stored.environment,
      BUNDOC_KMS_URL: this.kms.internalUrl,
      BUNDOC_KMS_TOKEN_FILE: this.tokenFile,
      ...this.#parts.environment,
    });
    const settings = {
      ...config,
      // One project is open at a time, so that each request of another project closes the previous one.
      ...(this.#others > 0 ? { openBytes: 0 } : {}),
      ...this.#parts.settings,
    };
    this.#bundoc = await startBundoc(settings, { ...this.#parts, logger: this.log.logger('bundoc') });
    await untilConfirmed(this.#bundoc.url);
    runningInstallations.add(this);
    if (this.#others > 0) await this.#takeTurns(this.#bundoc.url);
  }

  /** Uses the same projects after a restart. */
  async #takeTurns(url: string): Promise<void> {
    const token = await this.client(['*']);
    this.#turns ??= new TakingTurns(this.#others, (method, path, body) =>
      callAlone(this.url, path, { method, token, ...(body === undefined ? {} : { body }) }),
    );
    takingTurns.set(new URL(url).origin, this.#turns);
  }

  /** The shares that requests hold, by name; empty when none is held. */
  held(): Record<string, number> {
    const shares = this.#bundoc?.shares.filter(({ held, waiting }) => held + waiting > 0) ?? [];
    return Object.fromEntries(shares.map(({ name, held }) => [name, held]));
  }

  /** @throws Error when a request was refused with an undocumented code, or a share is still held. */
  async stopBundoc(): Promise<void> {
    const bundoc = this.#bundoc;
    if (bundoc === undefined) return;
    takingTurns.delete(new URL(bundoc.url).origin);
    const undocumented = await undocumentedErrors(bundoc.url);
    runningInstallations.delete(this);
    await bundoc.close();
    const held = this.held();
    this.#bundoc = undefined;
    if (Object.keys(held).length > 0) throw new Error(`shares are held at the end: ${JSON.stringify(held)}`);
    if (undocumented.length > 0)
      throw new Error(`these refusals are not documented: ${undocumented.join('; ')}`);
  }

  /**
   * Issues a token as the command line does: through the store of the running service.
   *
   * @param unchecked skips the check of the request, for tokens that no release issues.
   */
  async issue(request: IssueTokenInput, { unchecked = false } = {}): Promise<string> {
    const { sub, typ, scope, keys = [], projects = [] } = request;
    const parsed = unchecked ? { sub, typ, scope, keys, projects } : issueTokenSchema.parse(request);
    const issued = async ({ tokens }: CliKms) => (await tokens.issue(parsed, { actor: 'cli' })).token;
    if (this.#kms === undefined) return withKms(this.kmsEnvironment, issued);
    this.#cli ??= new OpenedByCli(this.kmsEnvironment);
    return issued(await this.#cli.kms);
  }

  /** The id of Bundoc's storage. */
  async storageId(): Promise<string> {
    return String((await call(this.url, '/ready')).json()['storage_id']);
  }

  /** Assigns a key to a storage as an administrator, while another storage may still use it. */
  async takeOverKey(name: string, storage: string): Promise<void> {
    const token = await this.issue({ sub: 'admin', typ: 'service', scope: ['kms:manage_key'], keys: [name] });
    const body = JSON.stringify({ storage, force: true });
    const path = `/v1/keys/${name}/take-over`;
    const answer = await call(this.kms.internalUrl, path, { method: 'POST', token, body });
    if (answer.status !== 200) throw new Error(`the key was not taken over: ${answer.text}`);
  }

  client(
    projects: string[] = ['*'],
    scope: IssueToken['scope'] = ['docs:read', 'docs:write'],
  ): Promise<string> {
    return this.issue({ sub: 'app', typ: 'client', scope, projects });
  }

  /** Bundoc's metrics, read with a token for metrics only. */
  async metrics(): Promise<string> {
    const token = await this.issue({ sub: 'prometheus', typ: 'service', scope: ['docs:metrics'] });
    return (await call(this.url, '/metrics', { token })).text;
  }

  /**
   * The paths of a project's document files, once there are `count`: they are written in the background after
   * their commits.
   */
  documentFiles(project: string, count: number): Promise<string[]> {
    return documentFiles(this.dataDir, project, count);
  }

  /** Reads a file below the installation's folder. */
  read(...path: string[]): Buffer {
    return readFileSync(join(this.folder, ...path));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#bundoc !== undefined) await this.#turns?.check();
    await this.stopBundoc();
    await this.stopKms();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
