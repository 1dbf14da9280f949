import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { needs, pathOf } from '@bundoc/shared/testing/programs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const METRIC = 'bunkms_last_backup_timestamp_seconds';
const page = readFileSync(new URL('../docs/operations/alerts.md', import.meta.url), 'utf8');
const [, expression = '', minutes = ''] =
  new RegExp(`^\\| \`([^\`]*${METRIC}[^\`]*)\` for (\\d+) minutes \\|`, 'm').exec(page) ?? [];

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bundoc-alert-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** The report of `promtool test rules`: empty when the alert fires at these minutes, and at no others. */
function check(series: readonly object[], firing: Readonly<Record<string, boolean>>): string {
  const alert = { alert: 'Late', expr: expression, for: `${minutes}m` };
  const tests = [
    {
      interval: '1m',
      input_series: series,
      alert_rule_test: Object.entries(firing).map(([minute, fires]) => ({
        eval_time: `${minute}m`,
        alertname: 'Late',
        exp_alerts: fires ? [{ exp_labels: {} }] : [],
      })),
    },
  ];
  // JSON is YAML.
  writeFileSync(join(folder, 'rules.yml'), JSON.stringify({ groups: [{ name: 'g', rules: [alert] }] }));
  writeFileSync(join(folder, 'test.yml'), JSON.stringify({ rule_files: ['rules.yml'], tests }));
  const { status, stdout, stderr } = spawnSync(String(pathOf('promtool')), ['test', 'rules', 'test.yml'], {
    cwd: folder,
    encoding: 'utf8',
  });
  return status === 0 ? '' : `${stdout}${stderr}`;
}

/** The clock of the test begins at 0, so a backup of minute 0 has the value 1. */
const written = (values: string) => [{ series: METRIC, values }];

describe('the alert of a late backup', needs('promtool'), () => {
  it('fires when the newest backup is more than three hours old, and ends with the next one', () => {
    const series = written(`1x200 ${201 * 60}x60`);
    expect(check(series, { 120: false, 185: false, 197: true, 205: false })).toBe('');
    expect(check(series, { 120: true })).toContain('FAILED');
  });

  it('fires when the first backup never succeeds', () => {
    expect(check(written('0x300'), { 200: true })).toBe('');
  });

  it('does not fire without BUNKMS_BACKUP_TO, which is without the series', () => {
    expect(check([{ series: 'up', values: '1x300' }], { 200: false, 300: false })).toBe('');
  });
});
