// Evaluates CPU profiles.

import { readFileSync } from 'node:fs';

/** The functions with the largest parts of the non-idle time, such as `12.3 % seal (aead.js:40)`. */
export function topOfProfile(path, count = 12) {
  const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(path, 'utf8'));
  const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
  const times = new Map();
  let busy = 0;
  for (const [at, id] of samples.entries()) {
    const name = names.get(id);
    if (name === '(idle)' || name.includes('node:inspector')) continue;
    busy += timeDeltas[at];
    times.set(name, (times.get(name) ?? 0) + timeDeltas[at]);
  }
  return Array.from(times)
    .toSorted(([, a], [, b]) => b - a)
    .slice(0, count)
    .map(([name, time]) => `${((time / busy) * 100).toFixed(1)} % ${name}`);
}

function nameOf({ functionName, url, lineNumber }) {
  const name = functionName === '' ? 'a function' : functionName;
  return url === '' ? name : `${name} (${url.split('/').at(-1)}:${lineNumber + 1})`;
}
