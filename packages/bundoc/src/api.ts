import { CONSOLE_FOLDER, STYLES_FOLDER } from '@bundoc/console/folder';
import { registerConsole } from '@bundoc/shared/console/routes';
import { readSite } from '@bundoc/shared/console/site';
import { AppError } from '@bundoc/shared/contract/app-error';
import { defined } from '@bundoc/shared/contract/defined';
import { BearerAuth } from '@bundoc/shared/http/bearer-auth';
import { allowOrigins } from '@bundoc/shared/http/cors';
import { type HttpShares, poolsOf } from '@bundoc/shared/http/http-shares';
import { createHttpServer, type HttpTimes, refuseOtherMethods } from '@bundoc/shared/http/server';
import { registerMetricsRoute } from '@bundoc/shared/http/service-routes';
import type { Logger } from '@bundoc/shared/logs/logger';
import { readDocsLook } from '@bundoc/shared/openapi/docs-page';
import { registerOpenapi } from '@bundoc/shared/openapi/routes';
import type { Drain } from '@bundoc/shared/process/drain';
import { VERSION } from '@bundoc/shared/process/version';
import { cachedCheck } from '@bundoc/shared/runtime/cached-check';
import type { Clock } from '@bundoc/shared/runtime/clock';
import type { RateLimit } from '@bundoc/shared/runtime/rate-limit';
import type { openServerTls } from '@bundoc/shared/tls/server-tls';
import type { FastifyInstance } from 'fastify';
import type { BundocConfig } from './config.ts';
import type { GenerationState, StorageGeneration } from './engine/identity/storage-generation.ts';
import type { Projects } from './engine/projects/projects.ts';
import type { StorageEngine } from './engine/storage-engine.ts';
import { guardService } from './http/access.ts';
import { registerBackup } from './http/backup.ts';
import { registerBatch } from './http/batch.ts';
import { registerChanges } from './http/changes.ts';
import { registerCollections } from './http/collections.ts';
import { registerDocuments } from './http/documents.ts';
import { type Readiness, registerHealth } from './http/health.ts';
import { registerLists } from './http/lists.ts';
import { registerMoves } from './http/moves.ts';
import { BUNDOC_API } from './http/openapi.ts';
import { registerPatch } from './http/patch.ts';
import { limitProcessorTime } from './http/processor-time.ts';
import { registerProjectDeletion, registerProjects } from './http/projects.ts';
import { registerQueries } from './http/queries.ts';
import { registerQueryWrites } from './http/query-writes.ts';
import type { KmsClient } from './kms/client.ts';
import type { KmsEvents } from './kms/events.ts';
import type { RevokedTokens } from './kms/revoked-tokens.ts';
import type { TokenKeys } from './kms/token-keys.ts';
import type { BundocMetrics } from './metrics.ts';
import type { ProjectDeletion } from './projects/delete-project.ts';
import type { InstanceManager } from './projects/instance-manager.ts';
import { SCAN_LIMITS } from './queries/scan-budget.ts';
import { Backups } from './service/backups.ts';
import { Batches } from './service/batches.ts';
import type { ChangeFeed } from './service/change-feed.ts';
import { Collections } from './service/collections.ts';
import type { DiskReport } from './service/disk-report.ts';
import { Documents } from './service/documents.ts';
import { ENOUGH } from './service/find-matches.ts';
import type { Moves } from './service/moves.ts';
import { ProjectDirectory } from './service/project-directory.ts';
import { Queries } from './service/queries.ts';
import { QueryWrites } from './service/query-writes.ts';
import type { Scheduler } from './work/scheduler.ts';
import type { ServiceShares } from './work/service-shares.ts';

/** The dependencies of the API. */
export interface ApiParts {
  readonly config: BundocConfig;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: BundocMetrics;
  /** Limits processor time per project. */
  readonly limit: RateLimit | undefined;
  readonly scheduler: Scheduler;
  readonly shares: ServiceShares;
  readonly httpShares: HttpShares;
  readonly storage: Pick<StorageEngine, 'isReady'>;
  readonly disk: DiskReport;
  readonly generation: StorageGeneration;
  readonly kms: KmsClient;
  readonly events: KmsEvents;
  readonly revoked: RevokedTokens;
  readonly tokenKeys: TokenKeys;
  readonly instances: InstanceManager;
  readonly projects: Projects;
  readonly deletion: ProjectDeletion;
  readonly feed: ChangeFeed;
  readonly moves: Moves;
  /** The id of the storage. */
  readonly id: string;
  readonly drain: Drain;
  readonly listenerTls: ReturnType<typeof openServerTls>;
  readonly times: HttpTimes | undefined;
}

/** An alert counts refused deletions by their route. */
const AWAITED = [{ route: '/v1/projects/:project', method: 'DELETE', statuses: [429, 503] }];
const READINESS_KEPT_MS = 1_000;
/** The readiness reason for each state of the generation that stops the service. */
const REASONS: Readonly<Record<GenerationState, Readiness['reason']>> = {
  confirmed: undefined,
  unconfirmed: 'kms_unavailable',
  superseded: 'storage_superseded',
};
/** The path of a document whose id has a slash. */
const BELOW_DOCUMENT = /^\/v1\/projects\/[^/]+\/collections\/[^/]+\/documents\/[^?#]*\//;

/** Creates the API without listening. */
export async function createApi(parts: ApiParts): Promise<FastifyInstance> {
  const { config, clock, logger, metrics, limit, revoked, tokenKeys, drain, times } = parts;
  const { httpShares, listenerTls: tls } = parts;
  const app = createHttpServer({
    logger,
    drain,
    bodyBytesMax: config.documentBytesMax,
    tls,
    shares: httpShares,
    hintOf: (target) => (BELOW_DOCUMENT.test(target) ? 'a document id has no "/"' : undefined),
    onProblem: (_request, error) => {
      if (error.code === 'disk_full') parts.disk.report(error);
      return undefined;
    },
    ...times,
  });
  if (config.corsOrigins.length > 0) allowOrigins(app, config.corsOrigins);
  const auth = new BearerAuth({
    audience: 'bundoc',
    keys: tokenKeys,
    clock,
    isRevoked: (claims) => revoked.has(claims),
  });
  await auth.register(app);
  metrics.measureRequests(app, 'api', AWAITED);
  if (limit !== undefined) limitProcessorTime(app, limit, metrics.rateLimited);
  metrics.watchShares(poolsOf(httpShares));
  await registerRoutes(app, auth, parts);
  registerMetricsRoute(app, metrics.registry, {
    access: { kind: 'token', scopes: ['docs:metrics'], serviceOnly: true },
    guard: guardService(auth, 'docs:metrics'),
  });
  const site = config.console ? readSite(CONSOLE_FOLDER) : undefined;
  if (config.console && site === undefined) logger.warn('the console is not built: it is not served');
  await registerConsole(app, { service: 'bundoc', version: VERSION, site, clock });
  await registerOpenapi(app, { service: BUNDOC_API, clock, page: readDocsLook(STYLES_FOLDER, 'bundoc') });
  refuseOtherMethods(app);
  return app;
}

async function registerRoutes(app: FastifyInstance, auth: BearerAuth, parts: ApiParts): Promise<void> {
  const { config, clock, scheduler, shares, instances, projects, generation } = parts;
  const { deletion, feed, moves } = parts;
  const { documentBytesMax } = config;
  const documents = new Documents(instances, { documentBytesMax });
  registerDocuments(app, documents, auth, scheduler);
  await registerPatch(app, documents, auth, scheduler);
  registerBatch(app, new Batches(instances, documentBytesMax), auth, config, scheduler);
  registerLists(app, documents, auth, scheduler, shares.pageReads);
  const requireServed = () => void generation.acting();
  const directory = new ProjectDirectory(projects, instances, requireServed);
  registerProjects(app, directory, auth);
  registerProjectDeletion(app, deletion, auth);
  registerCollections(app, new Collections(instances), auth, scheduler);
  registerQueries(app, new Queries(instances, SCAN_LIMITS), auth, scheduler);
  const writes = new QueryWrites(instances, { documentBytesMax, scan: SCAN_LIMITS, enough: ENOUGH });
  registerQueryWrites(app, writes, auth, config, scheduler);
  registerChanges(app, feed, auth, shares.streamBytes, scheduler);
  registerBackup(app, new Backups({ instances, clock }, shares.backups), auth);
  registerMoves(app, moves, auth);
  registerHealth(app, readinessOf(parts), auth, parts.drain);
}

/** Returns the check behind `/ready`. */
function readinessOf({
  clock,
  storage,
  generation,
  kms,
  events,
  id,
  disk,
}: ApiParts): () => Promise<Readiness> {
  const readiness = cachedCheck(clock, READINESS_KEPT_MS, async () => {
    const [isReady, outage, space] = await Promise.all([storage.isReady(), kms.outage(), disk.space()]);
    if (!isReady) disk.report(new AppError('storage_unavailable'));
    return {
      ...defined({ disk: space }),
      storage: isReady ? 'ok' : 'failing',
      storage_id: id,
      kms: outage === undefined ? 'up' : 'down',
    } as const;
  });
  return async () => {
    const checked = await readiness();
    // Read on every call: the service stops as soon as BunKMS refuses a generation.
    const { state, generation: confirmed } = generation;
    const reason = REASONS[state] ?? (checked.storage === 'ok' ? undefined : 'storage_unavailable');
    return {
      ...checked,
      kms_events: events.isLive ? 'live' : 'down',
      ...defined({ generation: confirmed, reason }),
    };
  };
}
