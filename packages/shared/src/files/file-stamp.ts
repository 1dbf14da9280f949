import { statSync } from 'node:fs';

/** Tells whether a file has changed. One that cannot be looked at has a stamp as well. */
export function stampOf(path: string): string {
  try {
    const { ino, mtimeNs, size } = statSync(path, { bigint: true });
    return `${ino}-${mtimeNs}-${size}`;
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code);
  }
}
