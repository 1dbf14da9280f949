/** A backup that is not whole, was changed, or does not open. The message says what. */
export class BackupDamaged extends Error {
  override readonly name = 'BackupDamaged';
}
