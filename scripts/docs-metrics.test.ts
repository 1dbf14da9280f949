import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { StorageCount } from '@bundoc/bundoc/engine/storage-engine';
import { createBundocMetrics } from '@bundoc/bundoc/metrics';
import { Scheduler } from '@bundoc/bundoc/work/scheduler';
import { createMetrics } from '@bundoc/bunkms/metrics';
import { expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');

function namesOfBundoc(): string[] {
  const metrics = createBundocMetrics();
  const zero = () => 0;
  // The compiler requires all of them.
  const storage: Readonly<Record<StorageCount, () => number>> = {
    lostProjects: zero,
    backlogBytes: zero,
    snapshotBytes: zero,
    snapshotsDropped: zero,
    databaseConnections: zero,
    databaseWaiting: zero,
    databaseSnapshots: zero,
    databaseSnapshotsWaiting: zero,
    logSegmentsLive: zero,
    logSegmentsFree: zero,
    logUncoveredBytes: zero,
    logFrames: zero,
    logCommits: zero,
    logSyncSeconds: zero,
    logCarries: zero,
    logCuts: zero,
    logStuckHandles: zero,
    logSuspects: zero,
    logHoles: zero,
    logWritesStopped: zero,
    archiveAgeS: zero,
    archiveRoundAgeS: zero,
    archiveDrillAgeS: zero,
    archiveObjects: zero,
    archiveFailures: zero,
    archiveChains: zero,
    archiveFailedBases: zero,
    archiveBasesWaiting: zero,
  };
  metrics.observe({
    ...storage,
    projectsOpen: zero,
    keysCached: zero,
    changeFollowers: zero,
    pendingReencryption: zero,
    openBytes: zero,
    openingsWaiting: zero,
    keyFetchesWaiting: zero,
    eventsLive: zero,
    tokensRevoked: zero,
    clockSkewS: zero,
    tokenExpiryS: zero,
    storageSuperseded: zero,
    receiptSeq: zero,
    workWaiting: zero,
    largeWorkWaiting: zero,
  });
  metrics.observeWork(new Scheduler());
  return metrics.registry.getMetricsAsArray().map(({ name }) => name);
}

function namesOfBunkms(): string[] {
  const metrics = createMetrics();
  metrics.observeOutsideKeys(async () => 0);
  metrics.observeShipLag(async () => 0);
  metrics.observeBackups(async () => 0);
  metrics.observeRewrap(async () => 0);
  metrics.observeDeletions(async () => 0);
  return metrics.registry.getMetricsAsArray().map(({ name }) => name);
}

it('the page of metrics lists every metric of the services', () => {
  const page = readFileSync(join(root, 'docs/operations/metrics.md'), 'utf8');
  const own = [...namesOfBundoc(), ...namesOfBunkms()].filter((name) => /^(bundoc|bunkms)_/.test(name));
  expect(own.length).toBeGreaterThan(40);
  expect(own.filter((name) => !page.includes(`| \`${name}\` |`))).toEqual([]);
});

it('every metric in the documentation exists', () => {
  const known = new Set([...namesOfBundoc(), ...namesOfBunkms()]);
  const pages = [
    'README.md',
    'SECURITY.md',
    'ARCHITECTURE.md',
    'packages/*/README.md',
    'docs/**/*.md',
  ].flatMap((pattern) => globSync(pattern, { cwd: root }));
  const named = pages.flatMap((page) => [
    ...readFileSync(join(root, page), 'utf8').matchAll(
      /\b(?:(?:bundoc|bunkms|nodejs|process)_[a-z0-9_]+)(?![-\w])/g,
    ),
  ]);
  const names = new Set(named.map(([name]) => name.replace(/_(?:count|sum|bucket)$/, '')));
  expect(names.size).toBeGreaterThan(20);
  expect([...names].filter((name) => !known.has(name))).toEqual([]);
});
