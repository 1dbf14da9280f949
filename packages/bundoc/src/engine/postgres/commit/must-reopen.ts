/** The project was given a new version of its key: its store is unusable and must be reopened. */
export class MustReopen extends Error {
  override readonly name: string = 'MustReopen';
}

/** The project has no head any more: it was deleted, or moved away. */
export class ProjectGone extends MustReopen {
  override readonly name = 'ProjectGone';
}
