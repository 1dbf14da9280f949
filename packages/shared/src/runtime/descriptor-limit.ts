import { readFileSync } from 'node:fs';

/** What is assumed where the system does not say: the least that is usual. */
const UNKNOWN = 1_024;

/** Descriptors that this process may have open, at the time of the call. */
export function descriptorLimit(read: () => string = readLimits): number {
  let limits: string;
  try {
    limits = read();
  } catch {
    return UNKNOWN;
  }
  const soft = /^Max open files\s+(\S+)/m.exec(limits)?.[1];
  if (soft === 'unlimited') return Number.POSITIVE_INFINITY;
  const limit = Number(soft);
  return Number.isSafeInteger(limit) && limit > 0 ? limit : UNKNOWN;
}

const readLimits = () => readFileSync('/proc/self/limits', 'utf8');
