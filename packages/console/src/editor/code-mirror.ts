import { defaultKeymap, history, historyKeymap } from '@codemirror/commands';
import { json } from '@codemirror/lang-json';
import { bracketMatching, HighlightStyle, indentOnInput, syntaxHighlighting } from '@codemirror/language';
import { highlightSelectionMatches, search, searchKeymap } from '@codemirror/search';
import { EditorState, type Extension, RangeSetBuilder, StateEffect, StateField } from '@codemirror/state';
import {
  Decoration,
  type DecorationSet,
  drawSelection,
  EditorView,
  highlightActiveLine,
  highlightSpecialChars,
  keymap,
  lineNumbers,
} from '@codemirror/view';
import { tags } from '@lezer/highlight';

export interface EditorOptions {
  readonly host: HTMLElement;
  readonly text: string;
  /** Its name for screen readers. */
  readonly label: string;
  readonly isReadOnly: boolean;
  readonly onChange: (text: string) => void;
  /** A further extension of the editor, such as {@link completing}. */
  readonly extension: Extension;
  /** Called for Ctrl-Enter and Cmd-Enter. */
  readonly onSubmit: () => void;
}

export interface MountedEditor {
  setText(text: string): void;
  /** Marks lines, numbered from 1. */
  markLines(lines: readonly number[]): void;
  destroy(): void;
}

/** Colours come from custom properties of the page, which the shadow root inherits. */
const theme = EditorView.theme({
  '&': { backgroundColor: 'var(--field)', color: 'var(--text)', fontSize: '13px', height: '100%' },
  '&.cm-focused': { outline: 'none' },
  '.cm-scroller': { fontFamily: 'var(--mono)', lineHeight: '1.55' },
  '.cm-content': { caretColor: 'var(--text)', padding: '8px 0' },
  '.cm-cursor': { borderLeftColor: 'var(--text)' },
  '.cm-gutters': {
    backgroundColor: 'var(--field)',
    color: 'var(--muted)',
    border: 'none',
    borderRight: '1px solid var(--line)',
  },
  '.cm-activeLine, .cm-activeLineGutter': { backgroundColor: 'var(--hover)' },
  '&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground': {
    backgroundColor: 'var(--selection)',
  },
  '.cm-marked': { backgroundColor: 'var(--changed)' },
  '.cm-specialChar': { color: 'var(--bad)' },
  '.cm-panels': { backgroundColor: 'var(--panel)', color: 'var(--text)' },
  '.cm-textfield': {
    backgroundColor: 'var(--field)',
    border: '1px solid var(--line-strong)',
    color: 'var(--text)',
  },
  '.cm-button': {
    backgroundImage: 'none',
    backgroundColor: 'var(--hover)',
    border: '1px solid var(--line-strong)',
    color: 'var(--text)',
  },
  '.cm-tooltip': {
    backgroundColor: 'var(--panel)',
    border: '1px solid var(--line-strong)',
    color: 'var(--text)',
  },
  '.cm-tooltip-autocomplete ul li[aria-selected]': {
    backgroundColor: 'var(--accent-fill)',
    color: 'var(--on-accent)',
  },
});

const colours = HighlightStyle.define([
  { tag: tags.propertyName, color: 'var(--json-name)' },
  { tag: tags.string, color: 'var(--json-string)' },
  { tag: tags.number, color: 'var(--json-number)' },
  { tag: [tags.bool, tags.null], color: 'var(--json-word)' },
  { tag: tags.invalid, color: 'var(--bad)' },
]);

const setMarks = StateEffect.define<readonly number[]>();
const marked = Decoration.line({ class: 'cm-marked' });
const marks = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(present, transaction) {
    let next = present.map(transaction.changes);
    for (const effect of transaction.effects) {
      if (!effect.is(setMarks)) continue;
      const builder = new RangeSetBuilder<Decoration>();
      for (const line of effect.value) {
        if (line > transaction.state.doc.lines) continue;
        const { from } = transaction.state.doc.line(line);
        builder.add(from, from, marked);
      }
      next = builder.finish();
    }
    return next;
  },
  provide: (field) => EditorView.decorations.from(field),
});

/**
 * Creates an editor in a shadow root, which adopts its styles, because the policy of the page forbids inline
 * styles in the document. Only LF ends a line, so that a CR is an ordinary character and the text round-trips
 * exactly.
 */
export function mountEditor(options: EditorOptions): MountedEditor {
  const { host, text, label, isReadOnly, onChange, extension, onSubmit } = options;
  const root = host.shadowRoot ?? host.attachShadow({ mode: 'open' });
  root.replaceChildren();
  const stateOf = (doc: string) =>
    EditorState.create({
      doc,
      extensions: [
        EditorState.lineSeparator.of('\n'),
        EditorState.readOnly.of(isReadOnly),
        EditorState.tabSize.of(2),
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({ 'aria-label': label, spellcheck: 'false', tabindex: '0' }),
        lineNumbers(),
        history(),
        drawSelection(),
        highlightSpecialChars({ addSpecialChars: /\r/g }),
        highlightSelectionMatches(),
        search({ top: true }),
        bracketMatching(),
        indentOnInput(),
        json(),
        syntaxHighlighting(colours),
        marks,
        theme,
        ...(isReadOnly ? [] : [highlightActiveLine()]),
        extension,
        // Tab leaves the editor, like every other field.
        keymap.of([
          {
            key: 'Mod-Enter',
            run: () => {
              onSubmit();
              return true;
            },
          },
          ...searchKeymap,
          ...historyKeymap,
          ...defaultKeymap,
        ]),
        EditorView.updateListener.of(({ docChanged, state }) => {
          if (docChanged) onChange(state.sliceDoc());
        }),
      ],
    });
  const view = new EditorView({ state: stateOf(text), parent: root, root });
  return {
    setText: (next) => view.setState(stateOf(next)),
    markLines: (lines) => view.dispatch({ effects: setMarks.of(lines) }),
    destroy: () => view.destroy(),
  };
}
