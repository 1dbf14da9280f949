/** Below the data folder: marks that nobody confirmed, for an operator to look at. */
export const SET_ASIDE_FOLDER = 'set-aside';

/** A mark that says of a project what is not so. Nothing of it is obeyed. */
export interface MarkSetAside {
  readonly project: string;
  /** Where it is now: a file below the data folder, or nowhere but in the log. */
  readonly file?: string;
  /** What it says, cut to a length that fits a log line. */
  readonly text?: string;
}

/** Told of each mark that is set aside. */
export type OnSetAside = (mark: MarkSetAside) => void;

/** The longest part of a mark that is logged. */
const LOGGED_CHARS_MAX = 500;

export function loggable(text: string): string {
  return text.slice(0, LOGGED_CHARS_MAX);
}

/**
 * A place where a project is to be made whose key BunKMS has released: so no mark is true that says it was
 * deleted.
 */
export interface MarkedPlace {
  readonly project: string;
  /** Whether the text of a mark is authentic, and what lies beside it is left over from a move. */
  readonly isLeftOver: (mark: string, hasFile: boolean) => Promise<boolean>;
  readonly onSetAside: OnSetAside;
}
