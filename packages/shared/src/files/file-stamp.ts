import { statSync } from 'node:fs';

/** A value that differs after a file has changed. A file that cannot be read also has one. */
export function stampOf(path: string): string {
  try {
    const { ino, mtimeNs, size } = statSync(path, { bigint: true });
    return `${ino}-${mtimeNs}-${size}`;
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code);
  }
}
