import type { ComponentChildren, JSX, TargetedInputEvent } from 'preact';
import { useId } from 'preact/hooks';

export function Field({
  label,
  hint,
  children,
}: {
  readonly label: string;
  readonly hint?: ComponentChildren;
  readonly children: (attributes: { id: string; 'aria-describedby'?: string }) => JSX.Element;
}) {
  const id = useId();
  const hintId = `${id}-hint`;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children(hint === undefined ? { id } : { id, 'aria-describedby': hintId })}
      {hint === undefined ? null : (
        <p class="hint" id={hintId}>
          {hint}
        </p>
      )}
    </div>
  );
}

interface TextFieldProps {
  readonly label: string;
  readonly hint?: ComponentChildren;
  readonly value: string;
  /** @param isValid whether the browser finds it so. */
  readonly onInput: (value: string, isValid: boolean) => void;
  readonly isSearch?: boolean;
  readonly pattern?: string;
  readonly required?: boolean;
  readonly 'aria-invalid'?: boolean;
}

/** A text field for an id, a name or a path, without automatic correction. */
export function TextField({ label, hint, isSearch = false, value, onInput, ...more }: TextFieldProps) {
  return (
    <Field label={label} hint={hint}>
      {(attributes) => {
        const all = {
          ...attributes,
          ...more,
          value,
          class: 'mono',
          autocomplete: 'off',
          spellcheck: false,
          onInput: ({ currentTarget: { value: typed, validity } }: TargetedInputEvent<HTMLInputElement>) =>
            onInput(typed, validity.valid),
        };
        return isSearch ? <input {...all} type="search" /> : <input {...all} />;
      }}
    </Field>
  );
}

/** One of some choices, each a value and its name. */
export function SelectField<T extends string | number>({
  label,
  value,
  choices,
  onChange,
}: {
  readonly label: string;
  readonly value: T;
  readonly choices: readonly (readonly [T, string])[];
  readonly onChange: (value: T) => void;
}) {
  return (
    <Field label={label}>
      {(attributes) => (
        <select
          {...attributes}
          value={value}
          onChange={({ currentTarget }) => {
            const chosen = choices[currentTarget.selectedIndex];
            if (chosen !== undefined) onChange(chosen[0]);
          }}
        >
          {choices.map(([choice, name]) => (
            <option key={choice} value={choice}>
              {name}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

export function Check({
  isChecked,
  onChange,
  children,
}: {
  readonly isChecked: boolean;
  readonly onChange: (isChecked: boolean) => void;
  readonly children: ComponentChildren;
}) {
  return (
    <label class="check">
      <input
        type="checkbox"
        checked={isChecked}
        onChange={(event) => onChange(event.currentTarget.checked)}
      />
      {children}
    </label>
  );
}

/** One of a few choices, all of them visible. */
export function Switch<T extends string>({
  label,
  choices,
  chosen,
  onChoose,
}: {
  readonly label: string;
  readonly choices: Readonly<Partial<Record<T, string>>>;
  readonly chosen: T;
  readonly onChoose: (choice: T) => void;
}) {
  return (
    <fieldset class="switch" aria-label={label}>
      {(Object.keys(choices) as T[]).map((choice) => (
        <button key={choice} type="button" aria-pressed={choice === chosen} onClick={() => onChoose(choice)}>
          {choices[choice]}
        </button>
      ))}
    </fieldset>
  );
}
