import { signal } from '@preact/signals';
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';

/** Whether the service answered the last request. */
export const isReachable = signal(true);

export interface Requested<T> {
  /** The last answer. It is kept until the next one arrives. */
  readonly data: T | undefined;
  readonly error: unknown;
  readonly isLoading: boolean;
  readonly reload: () => void;
}

interface State<T> {
  readonly key: string;
  readonly data: T | undefined;
  readonly error: unknown;
  readonly isLoading: boolean;
}

/**
 * Sends a request when the view appears, when `key` changes, when `reload` is called, and after a failure
 * once the service answers again. It drops an answer that arrives after the next request.
 *
 * @param key identifies the request; undefined sends none.
 * @param everyMs repeats the request while the page is visible.
 * @param isWanted whether the last answer may change, so that repeating makes sense.
 */
export function useRequest<T>(
  key: string | undefined,
  ask: (signal: AbortSignal) => Promise<T>,
  everyMs?: number,
  isWanted: (last: T) => boolean = () => true,
): Requested<T> {
  const [state, setState] = useState<State<T>>({
    key: '',
    data: undefined,
    error: undefined,
    isLoading: true,
  });
  const [round, setRound] = useState(0);
  const latest = useRef(ask);
  latest.current = ask;
  const isBusy = useRef(false);
  const mayChange = useRef(true);
  mayChange.current = state.data === undefined || isWanted(state.data);
  useEffect(() => {
    if (key === undefined) return;
    const stop = new AbortController();
    isBusy.current = true;
    setState((before) => ({
      key,
      data: before.key === key ? before.data : undefined,
      error: undefined,
      isLoading: true,
    }));
    latest.current(stop.signal).then(
      (data) => {
        if (stop.signal.aborted) return;
        isBusy.current = false;
        setState({ key, data, error: undefined, isLoading: false });
      },
      (error: unknown) => {
        if (stop.signal.aborted) return;
        isBusy.current = false;
        setState((before) => ({ ...before, key, error, isLoading: false }));
      },
    );
    return () => stop.abort();
  }, [key, round]);
  const reload = useCallback(() => setRound((before) => before + 1), []);
  useEffect(() => {
    if (everyMs === undefined) return;
    const timer = setInterval(() => {
      // Do not repeat while an answer is pending.
      if (document.visibilityState === 'visible' && !isBusy.current && mayChange.current) reload();
    }, everyMs);
    return () => clearInterval(timer);
  }, [everyMs, reload]);
  const answers = isReachable.value;
  useEffect(() => {
    if (answers && state.error !== undefined) reload();
  }, [answers]);
  const isCurrent = state.key === (key ?? '');
  return {
    data: isCurrent ? state.data : undefined,
    error: isCurrent ? state.error : undefined,
    isLoading: key !== undefined && (!isCurrent || state.isLoading),
    reload,
  };
}
