import { createServiceMetrics } from '@bundoc/shared/http/metrics';
import { Counter, Gauge } from 'prom-client';

/** The service's metrics, in a registry of its own. No label is ever a key name, a subject or an address. */
export function createMetrics() {
  const service = createServiceMetrics('bunkms_');
  const registers = [service.registry];
  return {
    ...service,
    exports: new Counter({
      name: 'bunkms_exports_total',
      help: 'Accesses to the export of keys, by outcome.',
      labelNames: ['outcome'],
      registers,
    }),
    auditRecordsLost: new Counter({
      name: 'bunkms_audit_records_lost_total',
      help: 'Audit records that could not be written and are in the log instead.',
      registers,
    }),
    peersRefused: new Counter({
      name: 'bunkms_internal_peers_refused_total',
      help: 'Connections to the internal listener from outside its network.',
      registers,
    }),
    sealed: new Gauge({ name: 'bunkms_sealed', help: '1 while the service is sealed.', registers }),
  };
}

export type Metrics = ReturnType<typeof createMetrics>;
