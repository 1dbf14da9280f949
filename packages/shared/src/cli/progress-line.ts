/** The state of a progress bar. */
export interface ProgressState {
  readonly value: number;
  /** 0 while it is unknown. */
  readonly total: number;
  /** The estimate of the seconds left. Before there is one, the bar's library has text here. */
  readonly eta: unknown;
  /** Characters of a line of the terminal; no bound when undefined. */
  readonly maxWidth?: number;
}

const BAR_CHARS_MAX = 40;

/**
 * A line of progress.
 *
 * @param format parts that are separated by commas, with names in braces: `{bar}`, `{value}`, `{total}`,
 *   `{percentage}`, `{eta_formatted}` and those of `fields`. A part with an unknown estimate is left out, and
 *   `/{total}` while the total is unknown. The bar gets what the other parts leave of the line.
 */
export function progressLine(
  format: string,
  { value, total, eta, maxWidth = Number.POSITIVE_INFINITY }: ProgressState,
  fields: Readonly<Record<string, unknown>> = {},
): string {
  const left = typeof eta === 'number' && Number.isFinite(eta) && total > 0 ? spanOf(eta) : undefined;
  const done = total > 0 ? Math.min(1, Math.max(0, value / total)) : 0;
  const known: Readonly<Record<string, unknown>> = {
    ...fields,
    value,
    total,
    percentage: Math.floor(done * 100),
    eta_formatted: left,
  };
  const line = format
    .split(', ')
    .filter((part) => left !== undefined || !part.includes('{eta_formatted}'))
    .map((part) => (total > 0 ? part : part.replace('/{total}', '')))
    .join(', ')
    .replace(/\{(?!bar\})(\w+)\}/g, (_, name: string) => String(known[name] ?? ''));
  const chars = Math.max(0, Math.min(BAR_CHARS_MAX, maxWidth - line.length + '{bar}'.length));
  const marks = Math.round(done * chars);
  return line.replace('{bar}', '█'.repeat(marks) + '░'.repeat(chars - marks));
}

/** Seconds as `40s`, `3m 5s` or `2h 10m`. */
function spanOf(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(whole / 3_600), Math.floor((whole % 3_600) / 60)];
  if (hours > 0) return `${hours}h ${minutes}m`;
  return minutes > 0 ? `${minutes}m ${whole % 60}s` : `${whole}s`;
}
