import assert from 'node:assert/strict';

declare module 'vitest' {
  interface ProvidedContext {
    /** The number of other projects whose requests alternate with those of a suite; none by default. */
    otherProjects?: number;
  }
}

/** Sends a request of another project. */
export type SendOther = (
  method: 'GET' | 'PUT',
  path: string,
  body?: string,
) => Promise<{ readonly status: number; readonly text: string }>;

/** The requests of other projects, one before each request of a suite. */
export class TakingTurns {
  readonly #projects: number;
  readonly #send: SendOther;
  #requests = 0;
  #last: Promise<void> = Promise.resolve();

  constructor(projects: number, send: SendOther) {
    this.#projects = projects;
    this.#send = send;
  }

  /** Sends the next project's request. One request runs at a time. */
  next(): Promise<void> {
    this.#last = this.#last.then(() => this.#next());
    return this.#last;
  }

  /** The next project writes its document. Once all have one, it reads it, and must get its own. */
  async #next(): Promise<void> {
    const at = this.#requests++ % this.#projects;
    const isWritten = this.#requests > this.#projects;
    const path = pathOf(at);
    const answer = isWritten ? await this.#send('GET', path) : await this.#send('PUT', path, `{"of":${at}}`);
    assert.equal(answer.status, isWritten ? 200 : 201, answer.text);
    if (isWritten) this.#requireOwn(at, answer.text);
  }

  /** Checks that each project that has written has its own document. */
  async check(): Promise<void> {
    for (let at = 0; at < Math.min(this.#requests, this.#projects); at++)
      this.#requireOwn(at, (await this.#send('GET', pathOf(at))).text);
  }

  #requireOwn(at: number, text: string): void {
    assert.equal((JSON.parse(text) as { of?: unknown }).of, at, text);
  }
}

const pathOf = (at: number) => `/v1/projects/other-${at}/collections/notes/documents/a`;
