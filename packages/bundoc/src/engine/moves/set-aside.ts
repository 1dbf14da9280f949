/** Below the data folder: unconfirmed marks, for an operator to inspect. */
export const SET_ASIDE_FOLDER = 'set-aside';

/** A mark with a false claim about a project. It is ignored. */
export interface MarkSetAside {
  readonly project: string;
  /** Its new place: a file below the data folder, or only the log. */
  readonly file?: string;
  /** Its text, truncated to fit a log line. */
  readonly text?: string;
}

/** Called for each mark that is set aside. */
export type OnSetAside = (mark: MarkSetAside) => void;

/** Maximum length of a logged mark. */
const LOGGED_CHARS_MAX = 500;

export function loggable(text: string): string {
  return text.slice(0, LOGGED_CHARS_MAX);
}

/** The place of a new project whose key BunKMS has released, so a mark that claims its deletion is false. */
export interface MarkedPlace {
  readonly project: string;
  /** Whether the mark is authentic and the content beside it is left over from a move. */
  readonly isLeftOver: (mark: string, hasFile: boolean) => Promise<boolean>;
  readonly onSetAside: OnSetAside;
}
