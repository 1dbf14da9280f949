import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import {
  type IssuedToken,
  type IssueToken,
  issueTokenSchema,
  type MayIssue,
  scopeSchema,
  TOKEN_TTL_S_MAX,
} from '@bundoc/shared/contract/tokens';
import { createLogger } from '@bundoc/shared/logs/logger';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { type RunningBunkms, startBunkms } from '../../src/app.ts';
import type { BunkmsConfig } from '../../src/config.ts';
import { type ChainVerdict, verifyChain } from '../../src/records/chain.ts';
import type { KmsStore } from '../../src/store/port.ts';
import { TokenService } from '../../src/tokens/token-service.ts';
import { parseKekRing } from '../../src/vault/kek-provider.ts';
import { type Unsealed, unseal } from '../../src/vault/unseal.ts';
import { Vault } from '../../src/vault/vault.ts';
import { type Answer, type Call, call } from './http.ts';
import { openTestStore, PATIENT_SQLITE, testStorage } from './storage.ts';

export interface KmsOptions {
  readonly clock?: Clock;
  /** The folder of an earlier service; the caller removes it. */
  readonly dataDir?: string;
  /** The text of the ring. */
  readonly kek?: string;
  /** Interval between checks of the database, in place of a second. */
  readonly watchEveryMs?: number;
  /** Interval between looks at older versions of keys of customers, in place of an hour. */
  readonly protectEveryMs?: number;
  /** Changes to {@link configOf}. */
  readonly config?: Partial<BunkmsConfig>;
  /** Decorates the store of the service. */
  readonly decorate?: (store: KmsStore) => KmsStore;
}

/** A running service, with access to its internals for tests. */
export interface TestKms extends AsyncDisposable {
  readonly running: RunningBunkms;
  readonly dataDir: string;
  readonly kek: string;
  /** Every log line so far. */
  readonly logs: string[];
  /** The store of the service, without decoration. */
  readonly store: KmsStore;
  api(path: string, options?: Call): Promise<Answer>;
  internal(path: string, options?: Call): Promise<Answer>;
  issue(request: Partial<IssueToken>): Promise<IssuedToken>;
  /** A service token that may do everything with every key. */
  readonly fullToken: () => Promise<string>;
  /** Opens the secrets of the store like the service. */
  secrets(): Promise<Unsealed>;
  /** The chain, once it contains everything that the service has to record. */
  records(): Promise<readonly AuditRecord[]>;
  verify(): Promise<ChainVerdict>;
}

export const KMS_SCOPES = scopeSchema.options.filter((scope) => scope.startsWith('kms:'));

/** A `may_issue` that allows everything. */
export const MAY_ISSUE_ALL: MayIssue = {
  scopes: [...scopeSchema.options],
  projects: ['*'],
  keys: ['*'],
  ttl_s: TOKEN_TTL_S_MAX.service,
};

export function newKek(): string {
  return randomBytes(32).toString('base64');
}

export function newDataDir(): string {
  return mkdtempSync(join(tmpdir(), 'bunkms-test-'));
}

export function configOf(dataDir: string, kek: string): BunkmsConfig {
  return {
    host: '127.0.0.1',
    port: 0,
    internalHost: '127.0.0.1',
    internalPort: 0,
    dataDir,
    storage: PATIENT_SQLITE,
    kek: { kind: 'inline', text: kek },
    outsideKeysFile: undefined,
    auditShip: undefined,
    backupTo: undefined,
    archive: undefined,
    leaseTtlMs: 900_000,
    limits: {
      exportsPerToken: 0,
      exportsPerKey: 0,
      cryptoPerToken: 0,
      cryptoPerKey: 0,
      renewalsPerMinute: 0,
      issuesPerToken: 0,
      readsPerToken: 0,
      creationsPerToken: 0,
      destructionsPerToken: 0,
    },
    shares: { ofAddressMax: 4_096 },
    console: false,
    drainMs: 0,
    logLevel: 'debug',
  };
}

export async function startKms(options: KmsOptions = {}): Promise<TestKms> {
  const dataDir = options.dataDir ?? newDataDir();
  const kek = options.kek ?? newKek();
  const clock = options.clock ?? systemClock;
  const logs: string[] = [];
  const destination = new Writable({
    write: (chunk, _encoding, done) => {
      logs.push(String(chunk));
      done();
    },
  });
  let opened: KmsStore | undefined;
  const appends = new Set<Promise<unknown>>();
  const running = await startBunkms(
    { ...configOf(dataDir, kek), ...options.config },
    {
      checkFilesEveryMs: 20,
      // Tests cause refusals faster than clients may.
      http: { refusalDelayMs: 0 },
      ...(options.watchEveryMs === undefined ? {} : { watchEveryMs: options.watchEveryMs }),
      chainEveryMs: 20,
      // Tests of older versions expect them as they are.
      protectEveryMs: options.protectEveryMs ?? 3_600_000,
      clock,
      logger: createLogger({ service: 'bunkms', level: 'debug', destination }),
      openStore: async () => {
        opened = await openTestStore(dataDir);
        const watched = watchAppends(opened, appends);
        return options.decorate?.(watched) ?? watched;
      },
    },
  );
  if (opened === undefined) throw new Error('no store was opened');
  const store = opened;
  const secrets = async () => {
    const state = await unseal(new Vault(parseKekRing('test', kek)), store, clock, 'cli');
    if (state.kind === 'sealed') throw new Error(state.reason);
    return state;
  };
  const issue = async (request: Partial<IssueToken>) => {
    const { signingKey, publicKey, chainKey } = await secrets();
    const { kid } = publicKey;
    const logger = createLogger({ service: 'bunkms', level: 'silent' });
    const tokens = new TokenService({ store, clock, logger, signingKey, kid, chainKey });
    return tokens.issue(issueTokenSchema.parse({ sub: 'tester', typ: 'service', ...request }), {
      actor: 'cli',
    });
  };
  const records = async () => {
    await settled(appends);
    return (await store.listAudit({ limit: 100_000 })).items;
  };
  return {
    running,
    dataDir,
    kek,
    logs,
    store,
    api: (path, more) => call(running.apiUrl, path, more),
    internal: (path, more) => call(running.internalUrl, path, more),
    issue,
    fullToken: async () =>
      (await issue({ scope: [...KMS_SCOPES], keys: ['*'], may_issue: MAY_ISSUE_ALL })).token,
    secrets,
    records,
    verify: async () => verifyChain((await secrets()).chainKey, await records()),
    [Symbol.asyncDispose]: async () => {
      await running.close();
      if (options.dataDir !== undefined) return;
      rmSync(dataDir, { recursive: true, force: true });
      await testStorage().forget(dataDir);
    },
  };
}

/** Tracks the running writes of audit records, and what is read back of them, in `running`. */
function watchAppends(store: KmsStore, running: Set<Promise<unknown>>): KmsStore {
  const tracked = <T>(call: Promise<T>): Promise<T> => {
    const watched: Promise<unknown> = call.then(
      () => running.delete(watched),
      () => running.delete(watched),
    );
    running.add(watched);
    return call;
  };
  return {
    ...store,
    appendAudit: (...args) => tracked(store.appendAudit(...args)),
    listAudit: (...args) => tracked(store.listAudit(...args)),
  };
}

/**
 * Resolves once background records are in the chain. Records that arrive during a write wait for the next
 * one, so a slow disk may need several rounds.
 */
async function settled(appends: ReadonlySet<Promise<unknown>>): Promise<void> {
  do {
    await Promise.all(appends);
    for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
  } while (appends.size > 0);
}
