/** A transaction's connection broke after its commit was asked for: it may have taken effect or not. */
export class OutcomeUnknown extends Error {
  override readonly name = 'OutcomeUnknown';
}

/** The project cannot be moved now. Where it was, it is in order; it may be tried again. */
export class MoveFailed extends Error {
  override readonly name = 'MoveFailed';
}

/** A backup that is not whole, was changed, or does not open. The message says what. */
export class BackupDamaged extends Error {
  override readonly name = 'BackupDamaged';
}

/** There is a project, or something else, where one was to be restored. Nothing was changed. */
export class ProjectExists extends Error {
  override readonly name = 'ProjectExists';
}
