import { useState } from 'preact/hooks';

/** The position of a view in a list: the cursors of the pages up to this one. */
export interface Pages {
  /** Undefined for the first page. */
  readonly cursor: string | undefined;
  /** Counted from 1. */
  readonly number: number;
  readonly previous: () => void;
  readonly next: (cursor: string | undefined) => void;
  readonly reset: () => void;
}

export function usePages(): Pages {
  const [cursors, setCursors] = useState<readonly (string | undefined)[]>([undefined]);
  return {
    cursor: cursors.at(-1),
    number: cursors.length,
    previous: () => setCursors(cursors.slice(0, -1)),
    next: (cursor) => setCursors([...cursors, cursor]),
    reset: () => setCursors([undefined]),
  };
}

/** Buttons for the previous and the next page, if there are further ones. */
export function Pager({
  pages,
  next,
  onReload,
}: {
  readonly pages: Pages;
  /** Cursor of the next page; undefined when there is none or it is unknown. */
  readonly next: string | undefined;
  readonly onReload?: (() => void) | undefined;
}) {
  const isOnly = pages.number === 1 && next === undefined;
  return (
    <div class="pager">
      {isOnly ? null : (
        <>
          <button type="button" disabled={pages.number === 1} onClick={pages.previous}>
            Previous
          </button>
          <button type="button" disabled={next === undefined} onClick={() => pages.next(next)}>
            Next
          </button>
        </>
      )}
      {onReload === undefined ? null : (
        <button type="button" class="quiet" onClick={onReload}>
          Reload
        </button>
      )}
      {pages.number === 1 ? null : <span class="muted">page {pages.number}</span>}
    </div>
  );
}
