const whole = new Intl.NumberFormat('en');
const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function count(value: number): string {
  return whole.format(value);
}

/** `1.4 MiB`. */
export function bytes(value: number): string {
  let unit = 0;
  let scaled = value;
  while (scaled >= 1_024 && unit < UNITS.length - 1) {
    scaled /= 1_024;
    unit++;
  }
  return `${unit === 0 || scaled >= 100 ? Math.round(scaled) : scaled.toFixed(1)} ${UNITS[unit]}`;
}

/** A duration in its largest unit: `14 min`. */
export function span(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1_000));
  if (s < 60) return `${s} s`;
  if (s < 3_600) return `${Math.floor(s / 60)} min`;
  if (s < 172_800) return `${Math.floor(s / 3_600)} h`;
  return `${Math.floor(s / 86_400)} d`;
}

/** `2026-11-27 08:15:02`, UTC. */
export function time(iso: string): string {
  return iso.slice(0, 19).replace('T', ' ');
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/**
 * Characters that are invisible or change the text direction: controls, direction marks, zero-width spaces.
 */
const UNSEEN = /[\p{Cc}\p{Cf}\u115f\u2028\u2029]/gu;

/** Text in one line with all characters visible, truncated to a number of characters. */
export function visible(text: string, max = 200): string {
  const cut = text.length > max ? `${text.slice(0, max)}…` : text;
  return cut.replace(UNSEEN, (char) => `\\u{${char.codePointAt(0)?.toString(16)}}`);
}
