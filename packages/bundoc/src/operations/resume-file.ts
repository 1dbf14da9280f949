import { open, readFile, rename, rm } from 'node:fs/promises';
import { parseJson } from '@bundoc/shared/json/parse-json';
import type { z } from 'zod';

/** Stores the progress of a transfer, so that the next run can resume. The whole file is replaced. */
export class ResumeFile<S extends z.ZodType> {
  readonly path: string;
  readonly #schema: S;

  constructor(path: string, schema: S) {
    this.path = path;
    this.#schema = schema;
  }

  /** @returns undefined when there is none. @throws Error for a foreign file. */
  async read(): Promise<z.infer<S> | undefined> {
    let text: string;
    try {
      text = await readFile(this.path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
    const state = this.#schema.safeParse(parseJson(text));
    if (!state.success) throw new Error(`${this.path} cannot be read: remove it to begin again`);
    return state.data;
  }

  /** Durable once resolved. */
  async write(state: z.infer<S>): Promise<void> {
    const temporary = `${this.path}.new`;
    const file = await open(temporary, 'w', 0o600);
    try {
      await file.writeFile(`${JSON.stringify(state)}\n`);
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(temporary, this.path);
  }

  async remove(): Promise<void> {
    await rm(this.path, { force: true });
  }
}
