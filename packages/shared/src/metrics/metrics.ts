import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from '@prometheus-io/client';
import type { FastifyInstance } from 'fastify';
import type { Pool } from '../admission/pool.ts';
import { PROBLEMS } from '../contract/problem.ts';
import { VERSION } from '../process/version.ts';
import { type AwaitedAnswers, RequestTimes } from './request-times.ts';

/** A certificate in use. */
export interface WatchedCertificate {
  /** When it expires, milliseconds since 1970; undefined without a certificate. */
  readonly notAfterMs: number | undefined;
}

/** The metrics of every service: of the process, its listeners and its certificates. */
export interface ServiceMetrics {
  readonly registry: Registry;
  /**
   * Counts and times the requests of one listener, from now on.
   *
   * @param awaited the answers that an alert counts by route.
   */
  measureRequests(app: FastifyInstance, listener: string, awaited?: readonly AwaitedAnswers[]): void;
  /** Counts a connection that TLS refused. */
  tlsRefused(listener: string): void;
  /** Exports when a certificate expires, at each scrape. */
  watchCertificate(use: string, certificate: WatchedCertificate): void;
  /** Exports what is held of shares and what waits, at each scrape. Their names are the labels. */
  watchShares(shares: readonly Pool[]): void;
}

/** The statuses of failures. */
const FAILURES = new Set(
  Object.values(PROBLEMS)
    .map(({ status }) => status)
    .filter((status) => status >= 500),
);

let processRegistry: Registry | undefined;

/**
 * The longest interval of a timer: the utilization of the event loop is not exported, so it need not be
 * sampled.
 */
const NEVER_MS = 2_147_483_647;

/**
 * Metrics of the Node process. They exist once per process, because their observers are never removed and
 * would keep each registry alive.
 */
function getProcessRegistry(): Registry {
  if (processRegistry === undefined) {
    processRegistry = new Registry();
    collectDefaultMetrics({ register: processRegistry, eventLoopUtilizationTimeout: NEVER_MS });
    for (const metric of processRegistry.getMetricsAsArray())
      if (!isNamedByConvention(metric)) processRegistry.removeSingleMetric(metric.name);
  }
  return processRegistry;
}

/** Only counters end in `_total`, and no name contains its type: `promtool check metrics` reports both. */
function isNamedByConvention({ name, type }: { readonly name: string; readonly type: string }): boolean {
  return name.endsWith('_total') ? type === 'counter' : !name.endsWith(`_${type}`);
}

/**
 * Creates the metrics of a service. Labels are route patterns, never paths, so that their number is bounded
 * and they contain no ids.
 *
 * @param prefix of the service's own metrics, with its underscore: `bundoc_`.
 */
export function createServiceMetrics(prefix: string): ServiceMetrics {
  const registry = new Registry();
  const registers = [registry];
  const processMetrics = getProcessRegistry();
  for (const { name } of processMetrics.getMetricsAsArray()) {
    const metric = processMetrics.getSingleMetric(name);
    if (metric !== undefined) registry.registerMetric(metric);
  }
  new Gauge({
    name: `${prefix}build_info`,
    help: 'Always 1. The labels give the versions of the service and of Node.',
    labelNames: ['version', 'node_version'],
    registers,
  }).set({ version: VERSION, node_version: process.versions.node }, 1);
  const times = new RequestTimes(`${prefix}http_request_duration_seconds`, registry);
  const tlsRefused = new Counter({
    name: `${prefix}tls_refused_connections_total`,
    help: 'Connections that TLS refused: no or a wrong client certificate, an old version, no TLS at all.',
    labelNames: ['listener'],
    registers,
  });
  const failures = new Counter({
    name: `${prefix}http_failures_total`,
    help: 'Requests that were answered with a status of 500 or more, without those of /ready.',
    labelNames: ['listener', 'status'],
    registers,
  });
  const certificates = new Map<string, WatchedCertificate>();
  new Gauge({
    name: `${prefix}certificate_expiry_timestamp_seconds`,
    help: 'When the certificate in use expires, in seconds since 1970.',
    labelNames: ['use'],
    registers,
    collect() {
      for (const [use, { notAfterMs }] of certificates)
        if (notAfterMs !== undefined) this.set({ use }, notAfterMs / 1_000);
    },
  });
  const shares = watchShares(prefix, registry);
  return {
    ...shares,
    registry,
    measureRequests: (app, listener, awaited) => {
      // An alert does not notice that a series begins with 1.
      tlsRefused.inc({ listener }, 0);
      for (const status of FAILURES) failures.inc({ listener, status }, 0);
      const record = times.recorderOf(listener, awaited);
      app.addHook('onResponse', (request, reply, done) => {
        const route = request.routeOptions.url ?? 'none';
        // A service that starts, or stops, answers 503 to probes: no request has failed.
        if (reply.statusCode >= 500 && route !== '/ready')
          failures.inc({ listener, status: reply.statusCode });
        record(route, request.method, reply.statusCode, reply.elapsedTime / 1_000);
        done();
      });
    },
    tlsRefused: (listener) => tlsRefused.inc({ listener }),
    watchCertificate: (use, certificate) => certificates.set(use, certificate),
  };
}

function watchShares(prefix: string, registry: Registry): Pick<ServiceMetrics, 'watchShares'> {
  const watched = new Map<string, Pool>();
  const registers = [registry];
  const figures: readonly (readonly [string, string, (share: Pool) => number])[] = [
    ['capacity', 'Units of a share for the whole process.', ({ capacity }) => capacity],
    ['held', 'Units of a share that are held.', ({ held }) => held],
    ['waiting', 'Requests that wait for a share.', ({ waiting }) => waiting],
    ['subjects', 'Subjects that hold some of a share, or wait for it.', ({ subjects }) => subjects],
  ];
  for (const [name, help, read] of figures)
    new Gauge({
      name: `${prefix}share_${name}`,
      help,
      labelNames: ['share'],
      registers,
      collect() {
        for (const [share, it] of watched) this.set({ share }, read(it));
      },
    });
  new Counter({
    name: `${prefix}share_refusals_total`,
    help: 'Refused requests by code: rate_limited if their own share was in use, overloaded if that of the process was.',
    labelNames: ['share', 'code'],
    registers,
    collect() {
      this.reset();
      for (const [share, { refusals }] of watched)
        for (const [code, count] of Object.entries(refusals)) this.inc({ share, code }, count);
    },
  });
  new Counter({
    name: `${prefix}share_cuts_total`,
    help: 'Bodies and answers that were cut off because they were too slow, or held most.',
    labelNames: ['share'],
    registers,
    collect() {
      this.reset();
      for (const [share, { cuts }] of watched) this.inc({ share }, cuts);
    },
  });
  const waits = new Histogram({
    name: `${prefix}share_wait_seconds`,
    help: 'Waits for a share by their end: admitted, refused, or left because the client disconnected. No wait is not counted.',
    labelNames: ['share', 'outcome'],
    buckets: [0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5],
    registers,
  });
  return {
    watchShares: (shares) => {
      for (const share of shares) {
        // Both listeners of BunKMS have the same gate.
        if (watched.get(labelOf(share)) === share) continue;
        watched.set(labelOf(share), share);
        share.onWait((_account, ms, outcome) =>
          waits.observe({ share: labelOf(share), outcome }, ms / 1_000),
        );
      }
    },
  };
}

function labelOf({ name }: Pool): string {
  return name.replaceAll(' ', '_');
}

/** A gauge that is read at each scrape. */
export function gauge(registry: Registry, name: string, help: string, read: () => number): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(read());
    },
  });
}

/** A counter whose total is kept elsewhere and read at each scrape. */
export function counter(registry: Registry, name: string, help: string, read: () => number): void {
  new Counter({
    name,
    help,
    registers: [registry],
    collect() {
      this.reset();
      this.inc(read());
    },
  });
}
