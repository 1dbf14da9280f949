/** One operation of a history. It took effect, if at all, at some moment between its two times. */
export interface Timed {
  readonly invokedAt: number;
  readonly answeredAt: number;
}

/**
 * Checks whether a history is linearizable (Herlihy and Wing, 1990). It needs an order of all operations in
 * which each answers like the sequential model. Operations that did not overlap keep their order. The search
 * is that of Wing and Gong with the memoization of Lowe: no combination of completed operations and state is
 * visited twice.
 *
 * @param step the possible states of the model after an operation with that answer; empty when the answer
 *   is impossible.
 * @returns whether such an order exists.
 */
export function isLinearizable<State, Operation extends Timed>(
  initial: State,
  history: readonly Operation[],
  step: (state: State, operation: Operation) => readonly State[],
): boolean {
  const all = (1n << BigInt(history.length)) - 1n;
  const seen = new Set<string>();
  const open: { readonly done: bigint; readonly state: State }[] = [{ done: 0n, state: initial }];
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    const { done, state } = node;
    if (done === all) return true;
    const id = `${done} ${JSON.stringify(state)}`;
    if (seen.has(id)) continue;
    seen.add(id);
    const rest = history.flatMap((operation, index) =>
      (done & (1n << BigInt(index))) === 0n ? [{ operation, bit: 1n << BigInt(index) }] : [],
    );
    // An operation must not come before one that was answered before it began.
    const bound = Math.min(...rest.map(({ operation }) => operation.answeredAt));
    const next = rest
      .filter(({ operation }) => operation.invokedAt <= bound)
      .flatMap(({ operation, bit }) =>
        step(state, operation).map((after) => ({ done: done | bit, state: after })),
      );
    // An operation without effect can always come first, so there is no choice.
    const pure = next.find((one) => JSON.stringify(one.state) === JSON.stringify(state));
    open.push(...(pure === undefined ? next : [pure]));
  }
  return false;
}
