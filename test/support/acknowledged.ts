import { expect } from 'vitest';

/** A possible state of a document: these bytes as its members, or absent. `rev` is known from an answer. */
export interface DocumentState {
  readonly body: string | undefined;
  readonly rev: string | undefined;
}

const ABSENT: DocumentState = { body: undefined, rev: undefined };

/**
 * The possible states of one document: the last acknowledged one, and each later write that lost its answer
 * because the process was killed. One writer at a time.
 */
export class Acknowledged {
  #states: DocumentState[] = [ABSENT];

  /** The only possible state; undefined while an answer is missing. */
  get known(): DocumentState | undefined {
    return this.#states.length === 1 ? this.#states[0] : undefined;
  }

  /** The possible states, the acknowledged one first. */
  get possible(): readonly DocumentState[] {
    return this.#states;
  }

  /** Begins a write. @returns what to call with its answer; without one, both outcomes stay possible. */
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
   * Records a read (`text` undefined: absent). The result must match one possible state, which becomes the
   * only one.
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

/** Whether the text of a document is its metadata followed by exactly these bytes. */
function isText(text: string | undefined, body: string | undefined): boolean {
  if (text === undefined || body === undefined) return text === body;
  const metadata = METADATA.exec(text)?.[0];
  return metadata !== undefined && text.slice(metadata.length) === body.slice(1);
}
