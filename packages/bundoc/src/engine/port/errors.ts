/** A transaction's connection broke during its commit: the commit may or may not have taken effect. */
export class OutcomeUnknown extends Error {
  override readonly name = 'OutcomeUnknown';
}

/** The project cannot be moved now. It is intact at its source, and the move can be repeated. */
export class MoveFailed extends Error {
  override readonly name = 'MoveFailed';
}

/** A backup that is incomplete, altered or undecryptable. The message says which. */
export class BackupDamaged extends Error {
  override readonly name = 'BackupDamaged';
}

/** The target of a restore already exists. Nothing was changed. */
export class ProjectExists extends Error {
  override readonly name = 'ProjectExists';
}
