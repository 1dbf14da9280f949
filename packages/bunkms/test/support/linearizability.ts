/** One operation of a history: it took effect, if at all, at some moment between its two. */
export interface Timed {
  readonly invokedAt: number;
  readonly answeredAt: number;
}

/**
 * Finds out whether a history is linearizable (Herlihy and Wing, 1990): whether there is an order of all
 * operations that keeps every two which did not overlap in their order, and in which each answers as the
 * sequential model does. A search in the manner of Wing and Gong with the memory of Lowe: what is done
 * already and the state that it led to are not looked at twice.
 *
 * @param step the states that the model may be in after an operation with that answer; none when it cannot
 * answer so.
 * @returns whether there is such an order.
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
    // Whatever was answered first must not come after what was asked for later.
    const bound = Math.min(...rest.map(({ operation }) => operation.answeredAt));
    const next = rest
      .filter(({ operation }) => operation.invokedAt <= bound)
      .flatMap(({ operation, bit }) =>
        step(state, operation).map((after) => ({ done: done | bit, state: after })),
      );
    // What changes nothing can always be put first, so there is nothing to choose.
    const pure = next.find((one) => JSON.stringify(one.state) === JSON.stringify(state));
    open.push(...(pure === undefined ? next : [pure]));
  }
  return false;
}
