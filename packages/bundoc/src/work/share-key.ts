/** Whose work something is. */
export interface ShareKey {
  /** The root of the token's family; empty for work of the service itself. */
  readonly subject: string;
  /** Empty where there is none. */
  readonly project: string;
}
