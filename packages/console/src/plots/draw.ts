import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';

export interface Plot {
  show(times: readonly number[], lines: readonly (readonly (number | undefined)[])[]): void;
  destroy(): void;
}

const HEIGHT = 140;
/** Seconds that a plot spans, at first and at most. New values enter from the right. */
const WINDOW_MIN_S = 60;
const WINDOW_MAX_S = 300;
/** Up to this number of values each is marked, because the line is short. */
const MARKED = 5;

/** Seconds since 1970 as `19:12`. */
function clock(seconds: number): string {
  return new Date(seconds * 1_000).toTimeString().slice(0, 5);
}

/** Draws a plot of lines over time in the colours of the page. */
export function draw(host: HTMLElement, names: readonly string[], unit: string): Plot {
  // The computed value, because a canvas knows neither variables nor the theme.
  const colour = (name: string) => {
    host.style.color = `var(${name})`;
    return getComputedStyle(host).color;
  };
  const strokes = [colour('--accent'), colour('--json-number')];
  const axis = {
    stroke: colour('--muted'),
    grid: { stroke: colour('--line'), width: 1 },
    ticks: { show: false },
    font: '11px system-ui',
  };
  host.style.color = '';
  let last = Date.now() / 1_000;
  const plot = new uPlot(
    {
      width: Math.max(120, host.clientWidth),
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      scales: {
        x: {
          range: (_plot, min, max) => [Math.min(max - WINDOW_MIN_S, Math.max(max - WINDOW_MAX_S, min)), max],
        },
        y: { range: (_plot, _min, max) => [0, max > 0 ? max * 1.15 : 1] },
      },
      axes: [
        { ...axis, size: 26, space: 90, values: (_plot, ticks) => ticks.map(clock) },
        { ...axis, size: 58, values: (_plot, ticks) => ticks.map((tick) => `${tick}${unit}`) },
      ],
      series: [
        {},
        ...names.map((label, at) => ({
          label,
          stroke: strokes[at] ?? '',
          width: 2,
          spanGaps: true,
          points: { show: (drawn: uPlot) => drawn.data[0].length <= MARKED, size: 5 },
        })),
      ],
    },
    [[], ...names.map(() => [])],
    host,
  );
  const resize = new ResizeObserver(() =>
    plot.setSize({ width: Math.max(120, host.clientWidth), height: HEIGHT }),
  );
  resize.observe(host);
  return {
    show: (times, lines) => {
      last = times.at(-1) ?? last;
      plot.setData([[...times], ...lines.map((line) => [...line])]);
    },
    destroy: () => {
      resize.disconnect();
      plot.destroy();
    },
  };
}
