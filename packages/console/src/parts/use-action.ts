import { useCallback, useEffect, useRef, useState } from 'preact/hooks';

/** An action of the user: whether it is running, and its error. */
export interface Action {
  readonly isBusy: boolean;
  readonly error: unknown;
  /** Starts the action and stops an earlier one. Failures become `error`. */
  readonly run: (work: (signal: AbortSignal) => Promise<void>) => Promise<void>;
  /** Stops a running action, without an error. */
  readonly stop: () => void;
  readonly clear: () => void;
}

/** Runs at most one action of a view at a time. It stops with the view. */
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
