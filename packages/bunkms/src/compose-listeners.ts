import type { Socket } from 'node:net';
import { CONSOLE_FOLDER } from '@bundoc/console/folder';
import { reportWaits } from '@bundoc/shared/admission/wait-report';
import { readSite } from '@bundoc/shared/console/site';
import { AppError, hasCode } from '@bundoc/shared/contract/app-error';
import { Connections } from '@bundoc/shared/http/connection-limit';
import { createHttpShares } from '@bundoc/shared/http/http-shares';
import type { HttpTimes } from '@bundoc/shared/http/server';
import { CountedLines } from '@bundoc/shared/logs/counted-lines';
import type { Drain } from '@bundoc/shared/process/drain';
import { VERSION } from '@bundoc/shared/process/version';
import type { ServerTls } from '@bundoc/shared/tls/server-tls';
import type { FastifyInstance } from 'fastify';
import type { ServiceDeps } from './compose-services.ts';
import { cryptoAudit } from './http/crypto-audit.ts';
import { exportAudit } from './http/export-audit.ts';
import { guardPeers } from './http/internal-network.ts';
import { createApiListener, createInternalListener, type OnProblem } from './http/listener.ts';
import { createReadiness } from './http/readiness.ts';
import type { ServiceGate } from './http/services.ts';
import { type Metrics, STORAGE_CONFLICTS } from './metrics.ts';
import type { OutsideKeys } from './outside/outside-keys.ts';
import type { Unsealer } from './unsealing.ts';

interface ListenerDeps extends ProblemDeps, Pick<ServiceDeps, 'config' | 'logger' | 'trust'> {
  readonly unsealer: Pick<Unsealer, 'unsealed' | 'sealed'>;
  readonly outside: Pick<OutsideKeys, 'faults'> | undefined;
  readonly drain: Drain;
  readonly apiTls: ServerTls | undefined;
  readonly internalTls: ServerTls | undefined;
  readonly times: HttpTimes | undefined;
  /** Identifies peers of the internal network. */
  readonly isPeer: (address: string) => boolean;
}

/** Creates both listeners. They do not listen yet. */
export async function createListeners(
  deps: ListenerDeps,
  opened: AsyncDisposableStack,
): Promise<{ readonly api: FastifyInstance; readonly internal: FastifyInstance }> {
  const { config, clock, logger, metrics, unsealer, outside, trust, drain } = deps;
  const { apiTls, internalTls, times } = deps;
  const isSealed = () => unsealer.unsealed === undefined || trust.isSealed;
  const gate = gateOf(unsealer, trust);
  const shares = createHttpShares({ ...config.shares, clock });
  opened.use(reportWaits(shares.gate, { clock, logger }));
  // Separate shares: strangers who fill the API listener must not block Bundoc's requests for keys.
  const internalConnections = new Connections({ ...config.shares, prefix: 'internal ', clock });
  const site = config.console ? readSite(CONSOLE_FOLDER) : undefined;
  if (config.console && site === undefined) logger.warn('the console is not built: it is not served');
  const listenerOptions = {
    shares,
    drain,
    logger,
    clock,
    metrics,
    console: { version: VERSION, site },
    publicKey: () => unsealer.unsealed?.publicKey,
    isSealed,
    services: gate,
    readiness: createReadiness({
      services: gate,
      isSealed,
      sealed: () => unsealer.sealed,
      faults: () => trust.publicFaults,
      outsideFaults: () => outside?.faults ?? [],
      clock,
    }),
    times,
  };
  const { onApiProblem, onInternalProblem } = problemHooks(deps);
  const api = opened.adopt(await createApiListener(listenerOptions, apiTls, onApiProblem), (app) =>
    app.close(),
  );
  const internal = opened.adopt(
    await createInternalListener(
      {
        ...listenerOptions,
        shares: { ...shares, connections: internalConnections },
        admit: admitPeers(deps),
      },
      internalTls,
      onInternalProblem,
    ),
    (app) => app.close(),
  );
  return { api, internal };
}

interface ProblemDeps extends Pick<ServiceDeps, 'recorders' | 'exports' | 'metrics' | 'clock'> {
  readonly unsealer: Pick<Unsealer, 'unsealed'>;
}

/** How each listener records a refusal. */
function problemHooks({ unsealer, recorders, exports, metrics, clock }: ProblemDeps): {
  readonly onApiProblem: OnProblem;
  readonly onInternalProblem: OnProblem;
} {
  const onCryptoProblem = cryptoAudit(recorders.crypto, clock);
  const onExportProblem = exportAudit(exports);
  const onAnyProblem = (...[request, error]: Parameters<OnProblem>): void => {
    // A sealed service encrypts nothing, so its log is enough for these refusals.
    if (unsealer.unsealed !== undefined) onCryptoProblem(request, error);
    countHolderRefusal(metrics, error);
  };
  const onApiProblem: OnProblem = (request, error) => {
    onAnyProblem(request, error);
    return undefined;
  };
  const onInternalProblem: OnProblem = (request, error) => {
    onAnyProblem(request, error);
    return onExportProblem(request, error);
  };
  return { onApiProblem, onInternalProblem };
}

/** Admits only peers from the internal network. */
function admitPeers({ isPeer, clock, logger, metrics }: ListenerDeps): (socket: Socket) => boolean {
  const lines = new CountedLines({ clock });
  return guardPeers(isPeer, (peer) => {
    metrics.peersRefused.inc();
    lines.say('', '', (counted) =>
      logger.warn({ peer, ...counted }, 'refused connections from outside the internal network'),
    );
  });
}

function countHolderRefusal(metrics: Metrics, error: AppError): void {
  if (hasCode(error, ...STORAGE_CONFLICTS)) metrics.holderRefusals.inc({ code: error.code });
}

function gateOf(unsealer: Pick<Unsealer, 'unsealed'>, trust: ServiceDeps['trust']): ServiceGate {
  return () => {
    trust.require();
    if (unsealer.unsealed === undefined) throw new AppError('sealed');
    return unsealer.unsealed.services;
  };
}
