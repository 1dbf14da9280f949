/** A store is of no use any more, and its project must be opened anew: it was given a new version of its key, or is gone. */
export class MustReopen extends Error {
  override readonly name = 'MustReopen';
}
