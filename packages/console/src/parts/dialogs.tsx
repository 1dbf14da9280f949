import type { ComponentChildren } from 'preact';
import { useId, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { Fault, Name } from './basics.tsx';
import { TextField } from './fields.tsx';

/** A dialog that keeps the focus until it is closed, and then returns it. */
export function Dialog({
  title,
  onClose,
  children,
}: {
  readonly title: string;
  /** Absent for one that must be answered. */
  readonly onClose?: (() => void) | undefined;
  readonly children: ComponentChildren;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  // Before anything else can move the focus from the opener.
  useLayoutEffect(() => {
    const shown = dialog.current;
    const opener = document.activeElement;
    shown?.showModal();
    return () => {
      shown?.close();
      // After the removal of the dialog, which may move the focus.
      setTimeout(() => {
        if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
      });
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose?.();
      }}
    >
      <h2 id={id}>{title}</h2>
      {children}
    </dialog>
  );
}

/** A dialog that asks whether something is to be done, and says how it failed. */
export function Confirmation({
  title,
  cancel = 'Cancel',
  confirm,
  isGrave = true,
  isBusy = false,
  error,
  onConfirm,
  onClose,
  children,
}: {
  readonly title: string;
  readonly cancel?: string;
  readonly confirm: string;
  readonly isGrave?: boolean;
  readonly isBusy?: boolean;
  readonly error?: unknown;
  readonly onConfirm: () => void;
  readonly onClose: () => void;
  readonly children: ComponentChildren;
}) {
  return (
    <Dialog title={title} onClose={onClose}>
      {children}
      <Fault error={error} />
      <div class="dialog-end">
        <button type="button" onClick={onClose}>
          {cancel}
        </button>
        <button type="button" class={isGrave ? 'danger' : 'primary'} disabled={isBusy} onClick={onConfirm}>
          {confirm}
        </button>
      </div>
    </Dialog>
  );
}

/** Confirms an irreversible action: its button is enabled once the name is typed. */
export function TypedConfirmation({
  name,
  what,
  action,
  isBusy,
  onConfirm,
}: {
  readonly name: string;
  readonly what: string;
  readonly action: string;
  readonly isBusy: boolean;
  readonly onConfirm: () => void;
}) {
  const [typed, setTyped] = useState('');
  return (
    <form
      class="confirm"
      onSubmit={(event) => {
        event.preventDefault();
        if (typed === name && !isBusy) onConfirm();
      }}
    >
      <TextField
        label={`Type the name of the ${what} to confirm`}
        hint={<Name text={name} />}
        value={typed}
        onInput={setTyped}
      />
      <button type="submit" class="danger" disabled={typed !== name || isBusy}>
        {isBusy ? 'Working…' : action}
      </button>
    </form>
  );
}
