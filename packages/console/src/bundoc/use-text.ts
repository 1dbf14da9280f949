import { useState } from 'preact/hooks';
import { onSignOut } from '../shell/session.ts';

/** Texts of requests by their place, so that a change of view loses none. */
const typed = new Map<string, string>();
onSignOut(() => typed.clear());

/**
 * The text that is typed for a request.
 *
 * @param place of the request: the collection and the kind.
 * @param begin what an editor shows before anything is typed.
 */
export function useText(place: string, begin: string): readonly [string, (text: string) => void] {
  const [text, setText] = useState(typed.get(place) ?? begin);
  const change = (next: string) => {
    typed.set(place, next);
    setText(next);
  };
  return [text, change];
}
