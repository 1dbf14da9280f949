import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { needs, pathOf } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call, Installation } from './support/installation.ts';

const page = readFileSync(new URL('../docs/operations/alerts.md', import.meta.url), 'utf8');

interface Rule {
  readonly expression: string;
  readonly forMinutes: number;
}

/** The part of the page with its two tables of alerts. */
const [alerts = ''] = page.split('## In the log');

/** The rules of the page: the expressions in the first column of its tables, and how long each must hold. */
const rules: readonly Rule[] = Array.from(
  alerts.matchAll(/^\| ((?:\\\||[^|])+) \|/gm),
  ([, cell = '']) => cell,
)
  .map((cell) => cell.replaceAll('\\|', '|'))
  .flatMap((cell) => Array.from(cell.matchAll(/`([^`/][^`]*[ (][^`]*)`(?: for (\d+|an?) (minute|hour))?/g)))
  .map(([, expression = '', count, unit]) => ({
    expression,
    forMinutes: (count === undefined ? 0 : Number(count) || 1) * (unit === 'hour' ? 60 : 1),
  }));

/** A series of a scrape. */
interface Series {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

function seriesOf(scrape: string): Series[] {
  return Array.from(
    scrape.matchAll(/^([a-z0-9_]+)(?:\{(.*)\})? (\S+)$/gm),
    ([, name = '', labels = '', value]) => ({
      name,
      labels: Object.fromEntries(
        Array.from(labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g), ([, label = '', text = '']) => [
          label,
          text,
        ]),
      ),
      value: Number(value),
    }),
  );
}

const textOf = ({ name, labels }: Series) =>
  `${name}{${Object.entries(labels)
    .map(([label, value]) => `${label}=${JSON.stringify(value)}`)
    .join(',')}}`;

/** What an expression selects: a name, and the values of labels. */
interface Selector {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** One selector for each combination of the alternatives that an expression names: `=~"500|503"` has two. */
function selectorsIn(expression: string): Selector[] {
  const found = expression.matchAll(/\b((?:bundoc|bunkms|process|nodejs)_[a-z0-9_]+)(?:\{([^}]*)\})?/g);
  return Array.from(found).flatMap(([, name = '', matchers = '']) => {
    let labels: Record<string, string>[] = [{}];
    for (const [, label = '', operator, values = ''] of matchers.matchAll(/(\w+)(=~?)"([^"]*)"/g)) {
      // Any other regular expression would hide which series must exist.
      expect(values).toMatch(operator === '=' ? /^[^|]*$/ : /^[\w|]*$/);
      labels = labels.flatMap((one) => values.split('|').map((value) => ({ ...one, [label]: value })));
    }
    return labels.map((one) => ({ name, labels: one }));
  });
}

const selects = ({ name, labels }: Selector, series: Series) =>
  series.name === name && Object.entries(labels).every(([label, value]) => series.labels[label] === value);

/** Series without a value until something is wrong or in use. None is a counter. */
const LATER: Readonly<Record<string, string>> = {
  bunkms_store_fault: 'a gauge with a label for each fault: it is 1 from its first sample on',
  bundoc_postgres_waiting: 'only on PostgreSQL',
  bundoc_postgres_snapshots_waiting: 'only on PostgreSQL',
};
/** Series that other programs export. */
const FOREIGN = /^(?:up == 0|predict_linear\(node_)/;
/** Series that exist with TLS only. */
const WITH_TLS = '{__name__=~"bun(doc|kms)_certificate_expiry_timestamp_seconds"}';

/** The counters of rules that fire at the first event. */
const FIRST_EVENT = /^(?:sum\()?(?:increase|rate)\([^[\]]*\[\d+[mh]\]\)\)? > 0$/;

interface Samples {
  readonly series: string;
  readonly values: string;
}

/** Samples with which a rule does not fire at one minute and does at another. */
interface Trial {
  readonly rule: Rule;
  readonly samples: readonly Samples[];
  readonly quietAt: number;
  readonly firesAt: number;
}

/** Minutes before the first event. */
const BEFORE = 4;
const DAY_S = 86_400;

/** A limit that time alone reaches between two minutes, and a value for it. */
const endsIn = (days: number) => `${days * DAY_S + BEFORE * 60 + 30}x20`;

/** Samples of rules that are neither a first event nor a comparison of one gauge. */
const SPECIAL: readonly (readonly [
  part: string,
  samples: readonly Samples[],
  quietAt: number,
  firesAt: number,
])[] = [
  [
    'bundoc_kms_token_expiry_timestamp_seconds',
    [{ series: 'bundoc_kms_token_expiry_timestamp_seconds', values: endsIn(5) }],
    BEFORE,
    BEFORE + 1,
  ],
  [
    '_certificate_expiry_timestamp_seconds',
    [
      { series: 'bundoc_certificate_expiry_timestamp_seconds{use="api"}', values: endsIn(30) },
      { series: 'bunkms_certificate_expiry_timestamp_seconds{use="internal"}', values: endsIn(14) },
    ],
    BEFORE,
    BEFORE + 1,
  ],
  [
    'bunkms_last_backup_timestamp_seconds',
    [{ series: 'bunkms_last_backup_timestamp_seconds', values: '1x250' }],
    180 + 15,
    181 + 15,
  ],
  [
    'bundoc_documents_pending_reencryption',
    [{ series: 'bundoc_documents_pending_reencryption', values: '0x4 5x500' }],
    BEFORE + 360,
    BEFORE + 361,
  ],
  [
    'process_open_fds',
    [
      { series: 'process_open_fds', values: '80x4 81x20' },
      { series: 'process_max_fds', values: '100x30' },
    ],
    BEFORE,
    BEFORE + 1,
  ],
  [
    '* 452',
    [{ series: 'bunkms_exports_total{outcome="allowed"}', values: '0x4 3000000x20' }],
    BEFORE,
    BEFORE + 1,
  ],
  [
    'bunkms_seal_slots{state="denied"}',
    [{ series: 'bunkms_seal_slots{state="denied"}', values: '0x4 1x20' }],
    BEFORE,
    BEFORE + 1,
  ],
  [
    'bunkms_seal_slots{state=~',
    [{ series: 'bunkms_seal_slots{state="unavailable"}', values: '0x4 1x40' }],
    BEFORE + 10,
    BEFORE + 11,
  ],
  [
    'bunkms_outside_calls_total',
    [{ series: 'bunkms_outside_calls_total{entry="acme",outcome="unavailable"}', values: '0x4 1+1x40' }],
    BEFORE + 10,
    BEFORE + 11,
  ],
  [
    'bundoc_snapshots_dropped_total',
    [{ series: 'bundoc_snapshots_dropped_total', values: '0x4 20x20' }],
    BEFORE,
    BEFORE + 1,
  ],
  [
    'node_filesystem_avail_bytes',
    [{ series: 'node_filesystem_avail_bytes', values: '1000000000x4 999000000-1000000x20' }],
    BEFORE,
    BEFORE + 1,
  ],
  [
    'bundoc_log_sync_seconds_total',
    [
      { series: 'bundoc_log_sync_seconds_total', values: '0x4 0.1+0.1x40' },
      { series: 'bundoc_log_frames_total', values: '0x4 1+1x40' },
    ],
    BEFORE + 10,
    BEFORE + 11,
  ],
];

/** What shows that a rule fires; empty when nothing does. @param scraped the series of fresh services. */
function trialsOf(rule: Rule, scraped: readonly Series[]): Trial[] {
  const { expression, forMinutes } = rule;
  const special = SPECIAL.find(([part]) => expression.includes(part));
  if (special !== undefined) {
    const [, samples, quietAt, firesAt] = special;
    return [{ rule, samples, quietAt, firesAt }];
  }
  const quietAt = BEFORE + forMinutes;
  if (FIRST_EVENT.test(expression)) {
    const selectors = selectorsIn(expression);
    const selected = scraped.filter((series) => selectors.some((selector) => selects(selector, series)));
    return selectors.map((selector) => {
      const first = selected.find((series) => selects(selector, series));
      const samples = selected.map((series) => ({
        series: textOf(series),
        values: series === first ? '0x4 1x20' : '0x25',
      }));
      return { rule, samples, quietAt, firesAt: quietAt + 1 };
    });
  }
  const gauge = /^(abs|min_over_time)?\(?([a-z0-9_]+)(?:\[1h\])?\)? (==|>) ([\de.]+)$/.exec(expression);
  if (gauge === null) return [];
  const [, over, series = '', operator, limit] = gauge;
  const [quiet, fires] =
    operator === '==' ? [1 - Number(limit), Number(limit)] : [Number(limit), Number(limit) + 1];
  const delay = over === 'min_over_time' ? 60 : 0;
  return (over === 'abs' ? [1, -1] : [1]).map((sign) => ({
    rule,
    samples: [{ series, values: `${sign * quiet}x4 ${sign * fires}x200` }],
    quietAt: quietAt + delay,
    firesAt: quietAt + delay + 1,
  }));
}

/**
 * The report of `promtool test rules`; empty when every rule fires in each of its trials, and not before.
 *
 * @param firing false when none is expected to fire at all.
 */
function report(trials: readonly Trial[], firing = true): string {
  const folder = mkdtempSync(join(tmpdir(), 'bundoc-rules-'));
  try {
    const names = [...new Set(trials.map(({ rule }) => rule))];
    const nameOf = (rule: Rule) => `rule-${names.indexOf(rule)}`;
    const group = names.map((rule) => ({
      alert: nameOf(rule),
      // What is counted has no labels, so a test need not repeat those of the series.
      expr: `count(${rule.expression}) > 0`,
      for: `${rule.forMinutes}m`,
      annotations: {},
    }));
    const tests = trials.map(({ rule, samples, quietAt, firesAt }) => ({
      name: rule.expression,
      interval: '1m',
      input_series: samples,
      alert_rule_test: [
        { eval_time: `${quietAt}m`, alertname: nameOf(rule), exp_alerts: [] },
        { eval_time: `${firesAt}m`, alertname: nameOf(rule), exp_alerts: firing ? [{ exp_labels: {} }] : [] },
      ],
    }));
    // JSON is YAML.
    writeFileSync(join(folder, 'rules.yml'), JSON.stringify({ groups: [{ name: 'g', rules: group }] }));
    writeFileSync(join(folder, 'test.yml'), JSON.stringify({ rule_files: ['rules.yml'], tests }));
    const promtool = String(pathOf('promtool'));
    const options = { cwd: folder, encoding: 'utf8' } as const;
    const { status, stdout, stderr } = spawnSync(promtool, ['test', 'rules', 'test.yml'], options);
    return status === 0 ? '' : `${stdout}${stderr}`;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

let folder: string;
let scraped: Series[];
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bundoc-scrape-'));
  const backups = join(folder, 'backups');
  mkdirSync(backups);
  const outsideKeys = join(folder, 'outside.json');
  const acme = { kind: 'bunkms', url: 'https://customer.example', key: 'k', token_file: 'token' };
  writeFileSync(outsideKeys, JSON.stringify({ keys: { acme } }));
  await using installation = await Installation.start({
    isOnFiles: true,
    kmsEnvironment: {
      BUNKMS_BACKUP_TO: backups,
      BUNKMS_AUDIT_SHIP: `file:${join(folder, 'copy')}`,
      BUNKMS_OUTSIDE_KEYS_FILE: outsideKeys,
    },
  });
  const internal = await call(installation.kms.internalUrl, '/metrics');
  scraped = seriesOf(`${await installation.metrics()}\n${internal.text}`);
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('the rules of alerts.md', () => {
  it('are all found', () => {
    // Each cell of a first column has at least one, except for the file systems, which have no expression.
    const rows = alerts.match(/^\| (?!expression|the file systems)/gm) ?? [];
    expect(rows.length).toBeGreaterThan(40);
    expect(rules.length).toBeGreaterThanOrEqual(rows.length);
    expect(new Set(rules.map(({ expression }) => expression)).size).toBe(rules.length);
  });

  it('name only series that exist from the start, and counters of events that begin with 0', () => {
    const missing: string[] = [];
    for (const { expression } of rules) {
      if (FOREIGN.test(expression) || expression.includes(WITH_TLS)) continue;
      for (const selector of selectorsIn(expression)) {
        if (Object.hasOwn(LATER, selector.name)) continue;
        const found = scraped.filter((series) => selects(selector, series));
        const isNew = !FIRST_EVENT.test(expression) || found.every(({ value }) => value === 0);
        if (found.length === 0 || !isNew) missing.push(`${selector.name} ${JSON.stringify(selector.labels)}`);
      }
    }
    expect(missing).toEqual([]);
  });

  it('fire at the first event of a fresh process, and not before', needs('promtool'), () => {
    const trials = rules.map((rule) => trialsOf(rule, scraped));
    expect(rules.filter((_rule, at) => trials[at]?.length === 0)).toEqual([]);
    expect(report(trials.flat())).toBe('');
  });

  it('would miss the first event of a series that begins with it', needs('promtool'), () => {
    const counted = rules.filter(({ expression }) => FIRST_EVENT.test(expression));
    expect(counted.length).toBeGreaterThan(15);
    const trials = counted
      .flatMap((rule) => trialsOf(rule, scraped))
      .map((trial) => ({
        ...trial,
        samples: trial.samples.map(({ series }) => ({ series, values: '_x4 1x20' })),
      }));
    expect(report(trials, false)).toBe('');
    expect(report(trials)).toContain('FAILED');
  });
});
