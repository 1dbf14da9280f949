import type { ProblemCode } from '@bundoc/shared/contract/problem';
import { createServiceMetrics } from '@bundoc/shared/metrics/metrics';
import { Counter, Gauge, Histogram, type Registry } from '@prometheus-io/client';
import { CALL_OUTCOMES, type CallOutcome } from './outside/bounded-key.ts';
import { CALL_MS } from './outside/port.ts';
import { SLOT_STATES } from './vault/open-ring.ts';

/** Refusals that need an operator: two storages request one key, or a storage has two copies. */
export const STORAGE_CONFLICTS = [
  'key_held_elsewhere',
  'storage_superseded',
] as const satisfies ProblemCode[];

/**
 * The metrics of the service, in a separate registry. No label is ever a key name, a subject or an address;
 * operators choose the names of outside keys.
 */
export function createMetrics() {
  const service = createServiceMetrics('bunkms_');
  const registers = [service.registry];
  const observed = (name: string, help: string) => observedGauge(name, help, registers);
  return {
    ...service,
    exports: countedBy('outcome', ['allowed', 'refused', 'failed'], {
      name: 'bunkms_exports_total',
      help: 'Requests to export a key, by outcome.',
      registers,
    }),
    cryptoItems: new Counter({
      name: 'bunkms_crypto_items_total',
      help: 'Items that were encrypted, decrypted or rewrapped, or failed, in requests that were carried out.',
      labelNames: ['operation', 'outcome'],
      registers,
    }),
    auditRecordsLost: new Counter({
      name: 'bunkms_audit_records_lost_total',
      help: 'Audit records that could not be written and are in the log instead.',
      registers,
    }),
    auditShipped: new Counter({
      name: 'bunkms_audit_shipped_records_total',
      help: 'Audit records that were copied to BUNKMS_AUDIT_SHIP and BUNKMS_ARCHIVE.',
      registers,
    }),
    auditShipFailures: new Counter({
      name: 'bunkms_audit_ship_failures_total',
      help: 'Times that the target of the copy failed, or did not answer.',
      registers,
    }),
    auditShipBreaks: new Counter({
      name: 'bunkms_audit_ship_breaks_total',
      help: 'Times that the audit chain differed from its copy.',
      registers,
    }),
    observeShipLag: observed(
      'bunkms_audit_ship_lag_records',
      'Audit records that the copy lacks; the most of several copies.',
    ),
    observeRewrap: observed(
      'bunkms_key_versions_pending_rewrap',
      'Key versions that are not wrapped with the current KEK.',
    ),
    observeDeletions: observed(
      'bunkms_deletion_intents_open',
      'Keys with a deletion intent that is not finished.',
    ),
    holderRefusals: countedBy('code', STORAGE_CONFLICTS, {
      name: 'bunkms_holder_refusals_total',
      help: 'Requests of storages that do not hold the key, or were superseded by another copy, by code.',
      registers,
    }),
    peersRefused: new Counter({
      name: 'bunkms_internal_refused_connections_total',
      help: 'Connections to the internal listener from outside its network.',
      registers,
    }),
    eventStreams: new Gauge({
      name: 'bunkms_event_streams',
      help: 'Services that receive events of keys and tokens.',
      registers,
    }),
    sealSlots: sealSlots(registers),
    observeOutsideKeys: observed(
      'bunkms_outside_keys_file_faults',
      'Faults of the file BUNKMS_OUTSIDE_KEYS_FILE; while there are some, its last good state is in use.',
    ),
    outsideCalls: outsideCalls(registers),
    ...backupMetrics(registers),
    ...trustMetrics(registers),
  };
}

/** With all states from the start, also without a sealed ring. */
function sealSlots(registers: Registry[]) {
  const gauge = new Gauge({
    name: 'bunkms_seal_slots',
    help: 'Slots of the sealed ring, by what they answered last.',
    labelNames: ['state'],
    registers,
  });
  for (const state of SLOT_STATES) gauge.set({ state }, 0);
  return gauge;
}

/** The calls of outside keys. Each entry of their file has all its series from the start. */
function outsideCalls(registers: Registry[]) {
  const calls = new Counter({
    name: 'bunkms_outside_calls_total',
    help: 'Calls of outside keys, by entry of BUNKMS_OUTSIDE_KEYS_FILE and by outcome.',
    labelNames: ['entry', 'outcome'],
    registers,
  });
  const seconds = new Histogram({
    name: 'bunkms_outside_call_seconds',
    help: 'How long calls of outside keys take with their wait for others, by outcome.',
    labelNames: ['outcome'],
    buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, CALL_MS / 1_000],
    registers,
  });
  for (const outcome of CALL_OUTCOMES) seconds.zero({ outcome });
  let known: readonly string[] = [];
  return {
    /** There are at most a thousand; former ones are forgotten. */
    entries: (names: readonly string[]) => {
      for (const outcome of CALL_OUTCOMES) {
        for (const entry of names) calls.inc({ entry, outcome }, 0);
        for (const entry of known) if (!names.includes(entry)) calls.remove({ entry, outcome });
      }
      known = names;
    },
    ended: (entry: string, outcome: CallOutcome, ms: number) => {
      if (known.includes(entry)) calls.inc({ entry, outcome });
      seconds.observe({ outcome }, ms / 1_000);
    },
  };
}

/**
 * A counter by one label, with all values of the label from the start: an alert does not notice that a series
 * begins with 1.
 */
function countedBy<L extends string>(
  label: L,
  values: readonly string[],
  options: { readonly name: string; readonly help: string; readonly registers: Registry[] },
): Counter<L> {
  const counter = new Counter({ ...options, labelNames: [label] });
  for (const value of values) counter.labels(value).inc(0);
  return counter;
}

/**
 * A gauge that exists from the call on. `read` returns undefined while the value is unknown; then the last
 * value stays.
 */
function observedGauge(name: string, help: string, registers: Registry[]) {
  return (read: () => Promise<number | undefined>) =>
    new Gauge({
      name,
      help,
      registers,
      async collect() {
        const value = await read();
        if (value !== undefined) this.set(value);
      },
    });
}

/** The service's own backups. */
function backupMetrics(registers: Registry[]) {
  return {
    backupFailures: new Counter({
      name: 'bunkms_backup_failures_total',
      help: 'Times that no backup could be written to BUNKMS_BACKUP_TO or BUNKMS_ARCHIVE, or that it lacks what is lost in the store.',
      registers,
    }),
    observeBackups: observedGauge(
      'bunkms_last_backup_timestamp_seconds',
      'The time of the newest backup in BUNKMS_BACKUP_TO and BUNKMS_ARCHIVE, in seconds since 1970; 0 without one. With both, of the one that is behind.',
      registers,
    ),
  };
}

/** Whether the service is sealed, and why. */
function trustMetrics(registers: Registry[]) {
  return {
    storeFaults: new Gauge({
      name: 'bunkms_store_fault',
      help: '1 for each object or record for which BunKMS does not trust its database.',
      labelNames: ['fault'],
      registers,
    }),
    invalidReceipts: countedBy('reason', ['malformed', 'forged'], {
      name: 'bunkms_invalid_receipts_total',
      help: 'Requests with a receipt that BunKMS did not make, or with no receipt in that header.',
      registers,
    }),
    sealed: new Gauge({ name: 'bunkms_sealed', help: '1 while the service is sealed.', registers }),
  };
}

export type Metrics = ReturnType<typeof createMetrics>;
