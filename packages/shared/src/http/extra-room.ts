/**
 * Room beyond a capacity for items that are brought to their end although there is none: one of each subject.
 * Besides the largest item, they take at most a fixed number of bytes together.
 */
export class ExtraRoom {
  readonly #bytesMax: number;
  readonly #bytes = new Map<string, number>();
  #sum = 0;
  #largest = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  hasRoom(subject: string, bytes: number): boolean {
    const besidesLargest = this.#sum + bytes - Math.max(this.#largest, bytes);
    return !this.#bytes.has(subject) && besidesLargest <= this.#bytesMax;
  }

  enter(subject: string, bytes: number): void {
    this.#bytes.set(subject, bytes);
    this.#sum += bytes;
    this.#largest = Math.max(this.#largest, bytes);
  }

  leave(subject: string): void {
    const bytes = this.#bytes.get(subject) ?? 0;
    this.#bytes.delete(subject);
    this.#sum -= bytes;
    if (bytes === this.#largest) this.#largest = this.#bytes.values().reduce((a, b) => Math.max(a, b), 0);
  }
}
