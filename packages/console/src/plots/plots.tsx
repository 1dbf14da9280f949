import { useEffect, useRef, useState } from 'preact/hooks';
import { Fault } from '../parts/basics.tsx';
import { useRequest } from '../parts/use-request.ts';
import { getOpenText } from '../shell/api.ts';
import type { Plot } from './draw.ts';
import { type Kind, type Look, readMetrics } from './metrics.ts';

const EVERY_MS = 2_000;
const POINTS = 150;

/** Plots of the metrics of the service since the view was opened. */
export function Plots({ kinds }: { readonly kinds: readonly Kind[] }) {
  const looks = useRef<readonly Look[]>([]);
  const look = useRequest(
    'metrics',
    async (signal) => ({ atMs: Date.now(), series: readMetrics(await getOpenText('/metrics', signal)) }),
    EVERY_MS,
  );
  const latest = look.data;
  if (latest !== undefined && looks.current.at(-1) !== latest)
    looks.current = [...looks.current, latest].slice(-POINTS);
  return (
    <section aria-labelledby="plots">
      <h2 id="plots">Since this view was opened</h2>
      <Fault error={look.error} retry={look.reload} />
      <div class="plots">
        {kinds.map((kind) => (
          <PlotFrame key={kind.title} kind={kind} looks={looks.current} />
        ))}
      </div>
    </section>
  );
}

/** A value with at most one decimal place and its unit. */
function rounded(value: number | undefined, unit: string): string {
  if (value === undefined) return '–';
  return `${value < 10 && !Number.isInteger(value) ? value.toFixed(1) : Math.round(value)}${unit}`;
}

function PlotFrame({ kind, looks }: { readonly kind: Kind; readonly looks: readonly Look[] }) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<Plot | undefined>(undefined);
  const [isReady, setIsReady] = useState(false);
  const times: number[] = [];
  const lines: (number | undefined)[][] = kind.lines.map(() => []);
  for (const [at, after] of looks.entries()) {
    const before = looks[at - 1];
    if (before === undefined) continue;
    times.push(after.atMs / 1_000);
    for (const [line, value] of kind.values(before, after).entries()) lines[line]?.push(value);
  }
  useEffect(() => {
    let isGone = false;
    void import('./draw.ts').then(({ draw }) => {
      if (isGone || host.current === null) return;
      plot.current = draw(host.current, kind.lines, kind.unit);
      setIsReady(true);
    });
    return () => {
      isGone = true;
      plot.current?.destroy();
    };
  }, [kind]);
  useEffect(() => plot.current?.show(times, lines), [looks, isReady]);
  return (
    <figure class="panel plot">
      <figcaption>
        <strong>{kind.title}</strong>
        {kind.lines.map((name, at) => (
          <span key={name} class="line muted">
            {name} {rounded(lines[at]?.at(-1), kind.unit)}
          </span>
        ))}
      </figcaption>
      <div ref={host} aria-hidden="true" />
    </figure>
  );
}
