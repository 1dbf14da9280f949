import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { type BundocParts, type RunningBundoc, startBundoc } from '@bundoc/bundoc/app';
import { readConfig as readBundocConfig } from '@bundoc/bundoc/config';
import { type RunningBunkms, startBunkms } from '@bundoc/bunkms/app';
import { init } from '@bundoc/bunkms/cli/init';
import { withKms } from '@bundoc/bunkms/cli/open-kms';
import { readConfig as readBunkmsConfig } from '@bundoc/bunkms/config';
import { type IssueToken, type IssueTokenInput, issueTokenSchema } from '@bundoc/shared/contract/tokens';
import { createLogger, type Logger } from '@bundoc/shared/runtime/logger';
import { freePort } from '@bundoc/shared/testing/free-port';
import { PATIENT_MS } from '@bundoc/shared/testing/timing';
import { inject } from 'vitest';
import { runningInstallations } from './running-installations.ts';
import { documentFiles, newStorage, type StoredProjects, storageInFiles } from './stored-projects.ts';
import { TakingTurns } from './taking-turns.ts';
import { noteRefusal, undocumentedErrors } from './undocumented-errors.ts';
import { untilConfirmed } from './until-confirmed.ts';

/** Everything that was logged, as one text. */
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

/** Other projects that take turns with those that requests are about, by the origin of their Bundoc. */
const takingTurns = new Map<string, TakingTurns>();

/** One HTTP request with its path sent exactly as it is given; `fetch` would rewrite it. */
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

/**
 * For Bundoc: what a busy machine holds up is no failure; not for tests of what it does when others do not
 * answer.
 */
export const PATIENT_BUNDOC = {
  BUNDOC_KMS_DEADLINE_MS: String(PATIENT_MS),
  BUNDOC_POSTGRES_CONNECT_TIMEOUT_MS: String(PATIENT_MS),
  BUNDOC_POSTGRES_STATEMENT_TIMEOUT_MS: String(PATIENT_MS),
  BUNDOC_POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_MS: String(PATIENT_MS),
};

/** What both services share in a test. */
export type InstallationParts = Pick<
  BundocParts,
  'clock' | 'checkTlsEveryMs' | 'checkGenerationEveryMs' | 'requestTimeoutMs' | 'wrapDisk'
> & {
  /** Variables for Bundoc. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Variables for BunKMS. */
  readonly kmsEnvironment?: Readonly<Record<string, string>>;
  /** Stores in files, whatever storage this run of the tests is about: for a process that is not Vitest's. */
  readonly isOnFiles?: boolean;
};

/** A whole installation in a temporary folder and this process: BunKMS, Bundoc, KEK, tokens. */
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
  /** One that BunKMS comes back to when it is started again. */
  #internalPort = 0;
  readonly #parts: InstallationParts;
  /** Other projects that take turns with those of the suite. */
  // Scripts that a test starts have no Vitest.
  readonly #others = process.env['VITEST'] === undefined ? 0 : (inject('otherProjects') ?? 0);
  #turns: TakingTurns | undefined;

  private constructor(parts: InstallationParts) {
    this.#parts = parts;
  }

  /** Makes the installation and starts both services. */
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

  /** What Bundoc has stored, wherever that is. */
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
    await this.#kms?.close();
    this.#kms = undefined;
  }

  async startBundoc(): Promise<void> {
    const config = readBundocConfig({
      BUNDOC_PORT: '0',
      ...PATIENT_BUNDOC,
      ...this.stored.environment,
      // One project is open at a time, so that each turn closes another one.
      ...(this.#others > 0 ? { BUNDOC_OPEN_BYTES: '0' } : {}),
      BUNDOC_KMS_URL: this.kms.internalUrl,
      BUNDOC_KMS_TOKEN_FILE: this.tokenFile,
      ...this.#parts.environment,
    });
    this.#bundoc = await startBundoc(config, { ...this.#parts, logger: this.log.logger('bundoc') });
    await untilConfirmed(this.#bundoc.url);
    runningInstallations.add(this);
    if (this.#others > 0) await this.#takeTurns(this.#bundoc.url);
  }

  /** The same ones after a restart. */
  async #takeTurns(url: string): Promise<void> {
    const token = await this.client(['*']);
    this.#turns ??= new TakingTurns(this.#others, (method, path, body) =>
      callAlone(this.url, path, { method, token, ...(body === undefined ? {} : { body }) }),
    );
    takingTurns.set(new URL(url).origin, this.#turns);
  }

  /** What requests hold of shares, by their names; empty when nothing is held. */
  held(): Record<string, number> {
    const shares = this.#bundoc?.shares.filter(({ held, waiting }) => held + waiting > 0) ?? [];
    return Object.fromEntries(shares.map(({ name, held }) => [name, held]));
  }

  /**
   * @throws Error when requests were refused with codes that the OpenAPI document does not tell of, or
   * something is held at the end.
   */
  async stopBundoc(): Promise<void> {
    const bundoc = this.#bundoc;
    if (bundoc === undefined) return;
    takingTurns.delete(new URL(bundoc.url).origin);
    const untold = await undocumentedErrors(bundoc.url);
    runningInstallations.delete(this);
    await bundoc.close();
    const held = this.held();
    this.#bundoc = undefined;
    if (Object.keys(held).length > 0) throw new Error(`shares are held at the end: ${JSON.stringify(held)}`);
    if (untold.length > 0) throw new Error(`these refusals are not documented: ${untold.join('; ')}`);
  }

  /** Issues a token as the command line does: beside the running service, into the same store. */
  async issue(request: IssueTokenInput): Promise<string> {
    const parsed: IssueToken = issueTokenSchema.parse(request);
    return withKms(
      this.kmsEnvironment,
      async ({ tokens }) => (await tokens.issue(parsed, { actor: 'cli' })).token,
    );
  }

  /** The storage that Bundoc works on. */
  async storageId(): Promise<string> {
    return String((await call(this.url, '/ready')).json()['storage_id']);
  }

  /** An administrator makes a storage the holder of a key, while others may still use it. */
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

  /** Bundoc's metrics, as Prometheus reads them: with a token that reads nothing else. */
  async metrics(): Promise<string> {
    const token = await this.issue({ sub: 'prometheus', typ: 'service', scope: ['docs:metrics'] });
    return (await call(this.url, '/metrics', { token })).text;
  }

  /**
   * Paths of a project's document files, once there are as many: they follow their commits in the background.
   */
  documentFiles(project: string, count: number): Promise<string[]> {
    return documentFiles(this.dataDir, project, count);
  }

  /** A file below the installation's folder. */
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
