import type { KeyObject } from 'node:crypto';
import { join, resolve } from 'node:path';
import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import { ArchivedBackups } from './archive/archived-backups.ts';
import { CHAIN_EVERY_MS, chainSink } from './archive/chain-sink.ts';
import { openArchive } from './archive/open-archive.ts';
import { resumedPosition } from './archive/read-chain.ts';
import { positionFile } from './audit/ship/position.ts';
import { AuditShipper, type ShipperOptions } from './audit/ship/shipper.ts';
import { fileSink, outputSink, type ShipSink } from './audit/ship/sinks.ts';
import type { BunkmsConfig, ShipTarget } from './config.ts';
import type { Metrics } from './metrics.ts';
import type { BackupDestination } from './recovery/backup-destination.ts';
import { BackupFolder, installationOf } from './recovery/backup-folder.ts';
import { ScheduledBackups, type ScheduledBackupsOptions } from './recovery/scheduled-backups.ts';
import type { KmsStore } from './store/port.ts';

/** Where the service's own backups and copies of its audit chain go. */
export interface Copies {
  readonly backups: readonly BackupDestination[];
  readonly sink: ShipSink | undefined;
  readonly archive: ObjectStorage | undefined;
}

type CopiesConfig = Pick<BunkmsConfig, 'dataDir' | 'auditShip' | 'backupTo' | 'archive'>;

interface CopiesPorts extends Pick<ScheduledBackupsOptions, 'clock'> {
  readonly database: KmsStore;
  readonly metrics: Metrics;
}

/**
 * Opens the targets, until `opened` closes. A metric names the newest backup even while the service is
 * sealed.
 *
 * @throws ConfigError for a setting that cannot be used. A target that is away or hangs delays no start.
 */
export function openCopies(
  config: CopiesConfig,
  { database, clock, metrics }: CopiesPorts,
  opened: AsyncDisposableStack,
): Copies {
  const installation = () => installationOf(database);
  const { dataDir, auditShip, backupTo } = config;
  const backups: BackupDestination[] = [];
  if (backupTo !== undefined) backups.push(new BackupFolder(backupTo, installation));
  const archive =
    config.archive === undefined
      ? undefined
      : opened.use(openArchive(config.archive, process.env, { dataDir: config.dataDir }));
  if (archive !== undefined)
    backups.push(new ArchivedBackups(archive, resolve(dataDir, 'archive-spool'), installation));
  if (backups.length > 0)
    metrics.observeBackups(async () => Math.min(...backups.map(({ newestMs }) => newestMs)) / 1_000);
  // The backups say why one cannot be read.
  for (const one of backups) void one.read(clock.now()).catch(() => undefined);
  return { backups, sink: auditShip && sinkOf(auditShip), archive };
}

function sinkOf(target: ShipTarget): ShipSink {
  return target.kind === 'stdout' ? outputSink() : fileSink(target.path);
}

type CopyDeps = Omit<ScheduledBackupsOptions, 'folder' | 'trust' | 'metrics'> &
  Pick<ShipperOptions, 'trust'> & {
    readonly trust: ScheduledBackupsOptions['trust'];
    readonly chainKey: KeyObject;
    readonly dataDir: string;
    readonly metrics: Metrics;
    /** {@link CHAIN_EVERY_MS} unless a test sets it. */
    readonly chainEveryMs: number | undefined;
  };

/** Starts to copy the chain and to back up, until `opened` closes. */
export function startCopies(
  { backups, sink, archive }: Copies,
  deps: CopyDeps,
  opened: AsyncDisposableStack,
): void {
  const { dataDir, store, logger, metrics, trust, chainEveryMs = CHAIN_EVERY_MS } = deps;
  const ports = { store, logger, metrics, trust };
  const shippers: AuditShipper[] = [];
  if (sink !== undefined) {
    const position = positionFile(join(dataDir, 'audit-ship.json'), sink.target);
    shippers.push(opened.use(new AuditShipper({ ...ports, sink, position })));
  }
  if (archive !== undefined) {
    const file = positionFile(join(dataDir, 'audit-archive.json'), archive.name);
    const shipped = chainSink(archive, () => installationOf(store));
    const position = resumedPosition(file, archive, store);
    shippers.push(opened.use(new AuditShipper({ ...ports, sink: shipped, position, pollMs: chainEveryMs })));
  }
  if (shippers.length > 0)
    metrics.observeShipLag(async () => {
      const lags = await Promise.all(shippers.map((shipper) => shipper.lag()));
      const known = lags.filter((lag) => lag !== undefined);
      return known.length === 0 ? undefined : Math.max(...known);
    });
  for (const folder of backups) opened.use(new ScheduledBackups({ ...deps, folder })).start();
}
