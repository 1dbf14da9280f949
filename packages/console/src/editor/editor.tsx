import { useEffect, useRef, useState } from 'preact/hooks';
import { Fault } from '../parts/basics.tsx';
import type { MountedEditor } from './code-mirror.ts';
import type { Word } from './completion.ts';

/** Loads the editor, and completion if there are words. */
async function load(words: readonly Word[]) {
  const [{ mountEditor }, completion] = await Promise.all([
    import('./code-mirror.ts'),
    words.length === 0 ? undefined : import('./completion.ts'),
  ]);
  return { mountEditor, extension: completion?.completing(words) ?? [] };
}

/**
 * A text editor. Its code is loaded when the first one is needed. `text` is the initial text; a new `version`
 * resets it.
 */
export function Editor({
  text,
  version,
  label,
  isReadOnly = false,
  marked = [],
  words = [],
  isTall = true,
  onChange = () => undefined,
  onSubmit = () => undefined,
}: {
  readonly text: string;
  readonly version: string;
  readonly label: string;
  readonly isReadOnly?: boolean;
  readonly marked?: readonly number[];
  readonly words?: readonly Word[];
  readonly isTall?: boolean;
  readonly onChange?: (text: string) => void;
  readonly onSubmit?: () => void;
}) {
  const host = useRef<HTMLDivElement>(null);
  const editor = useRef<MountedEditor | undefined>(undefined);
  const latest = useRef({ onChange, onSubmit });
  latest.current = { onChange, onSubmit };
  const [fault, setFault] = useState<unknown>();
  const [isReady, setIsReady] = useState(false);
  useEffect(() => {
    let isGone = false;
    load(words).then(({ mountEditor, extension }) => {
      if (isGone || host.current === null) return;
      editor.current = mountEditor({
        host: host.current,
        text,
        label,
        isReadOnly,
        extension,
        onChange: (next) => latest.current.onChange(next),
        onSubmit: () => latest.current.onSubmit(),
      });
      setIsReady(true);
    }, setFault);
    return () => {
      isGone = true;
      editor.current?.destroy();
      editor.current = undefined;
    };
  }, []);
  const shown = useRef(version);
  useEffect(() => {
    if (shown.current === version) return;
    shown.current = version;
    editor.current?.setText(text);
  }, [version]);
  const marks = marked.join(',');
  useEffect(() => editor.current?.markLines(marked), [marks, isReady, version]);
  return (
    <>
      <Fault error={fault} />
      <div ref={host} class={isTall ? 'editor tall' : 'editor'} data-ready={isReady} />
    </>
  );
}
