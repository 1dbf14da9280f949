import { useCallback, useEffect, useRef, useState } from 'preact/hooks';

/** Something that a user has asked for: whether it is under way, and how it failed. */
export interface Action {
  readonly isBusy: boolean;
  readonly error: unknown;
  /** Begins it; what was begun before is stopped. Failures become `error`. */
  readonly run: (work: (signal: AbortSignal) => Promise<void>) => Promise<void>;
  /** Ends what is under way, which is no failure. */
  readonly stop: () => void;
  readonly clear: () => void;
}

/** One action of a view at a time. It ends with the view. */
export function useAction(): Action {
  const [state, setState] = useState<{ readonly isBusy: boolean; readonly error: unknown }>({
    isBusy: false,
    error: undefined,
  });
  const current = useRef<AbortController | undefined>(undefined);
  useEffect(() => () => current.current?.abort(), []);
  const run = useCallback(async (work: (signal: AbortSignal) => Promise<void>) => {
    current.current?.abort();
    const own = new AbortController();
    current.current = own;
    setState({ isBusy: true, error: undefined });
    try {
      await work(own.signal);
      if (current.current === own) setState({ isBusy: false, error: undefined });
    } catch (error) {
      if (current.current === own && !own.signal.aborted) setState({ isBusy: false, error });
    }
  }, []);
  const stop = useCallback(() => {
    current.current?.abort();
    setState((before) => ({ ...before, isBusy: false }));
  }, []);
  const clear = useCallback(() => setState((before) => ({ ...before, error: undefined })), []);
  return { ...state, run, stop, clear };
}
