import { expect } from 'vitest';

/** What a document may be: these bytes as its members, or absent. `rev` where an answer told it. */
export interface DocumentState {
  readonly body: string | undefined;
  readonly rev: string | undefined;
}

const ABSENT: DocumentState = { body: undefined, rev: undefined };

/**
 * What one document may be, by the answers that came: the last acknowledged state, and each later one whose
 * answer did not come because the process was killed. One writer at a time.
 */
export class Acknowledged {
  #states: DocumentState[] = [ABSENT];

  /** The only state that it may have; undefined while an answer is missing. */
  get known(): DocumentState | undefined {
    return this.#states.length === 1 ? this.#states[0] : undefined;
  }

  /** States that it may have, the acknowledged one first. */
  get possible(): readonly DocumentState[] {
    return this.#states;
  }

  /**
   * A write is on its way. @returns what to call with its answer; without one, both outcomes stay possible.
   */
  begin(body: string | undefined): { acknowledged(rev?: string): void; refused(): void } {
    const next: DocumentState = { body, rev: undefined };
    this.#states.push(next);
    return {
      acknowledged: (rev) => {
        this.#states = [{ body, rev }];
      },
      refused: () => {
        this.#states = this.#states.filter((state) => state !== next);
      },
    };
  }

  /**
   * It was read (`text` undefined: it is absent): it must be one of the possible states, exactly, and is that
   * one from here on.
   */
  settle(name: string, text: string | undefined, rev: string | undefined): void {
    const found = this.#states.find(
      (state) => isText(text, state.body) && (state.rev === undefined || state.rev === rev),
    );
    expect(found, `${name} is ${text?.slice(0, 300)} rev ${rev}, not ${this.#describe()}`).toBeDefined();
    this.#states = [{ body: found?.body, rev }];
  }

  #describe(): string {
    return this.#states.map(({ body, rev }) => `${body?.slice(0, 80) ?? 'absent'} rev ${rev}`).join(' or ');
  }
}

const METADATA =
  /^\{"_id":"[^"]*","_collection":"[^"]*","_rev":"[0-9a-f]{24}","_created":"[^"]{24}","_updated":"[^"]{24}",/;

/** Whether the text of a document is the metadata and then exactly these bytes. */
function isText(text: string | undefined, body: string | undefined): boolean {
  if (text === undefined || body === undefined) return text === body;
  const metadata = METADATA.exec(text)?.[0];
  return metadata !== undefined && text.slice(metadata.length) === body.slice(1);
}
