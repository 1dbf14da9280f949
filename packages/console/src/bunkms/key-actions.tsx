import type { KeyDetail } from '@bundoc/shared/contract/keys';
import { useState } from 'preact/hooks';
import { Fault } from '../parts/basics.tsx';
import { Dialog, TypedConfirmation } from '../parts/dialogs.tsx';
import { Check, TextField } from '../parts/fields.tsx';
import { path } from '../shell/api.ts';
import { may } from '../shell/session.ts';

/** What may be done with a key. */
export type Asked = 'rotate' | 'disable' | 'enable' | 'restore' | 'take-over' | 'schedule' | 'destroy';

/** The call that does what was asked for. */
export interface Call {
  readonly method: 'POST' | 'DELETE';
  readonly path: string;
  readonly query?: Record<string, string>;
  readonly body?: string;
}

const LABELS: Readonly<Record<Asked, string>> = {
  rotate: 'Rotate',
  disable: 'Disable',
  enable: 'Enable',
  restore: 'Restore',
  'take-over': 'Take over',
  schedule: 'Delete in 30 days',
  destroy: 'Destroy now',
};
const TITLES: Readonly<Record<Asked, string>> = {
  rotate: 'Make a new version?',
  disable: 'Disable this key?',
  enable: 'Enable this key?',
  restore: 'Take back the deletion?',
  'take-over': 'Give this key to another storage?',
  schedule: 'Delete this key in 30 days?',
  destroy: 'Destroy this key now?',
};

function explanationOf(asked: Asked, isHeld: boolean): string {
  switch (asked) {
    case 'rotate':
      return 'BunKMS mints a new version. The holder gets it within a second and re-seals in the background. Older versions stay.';
    case 'disable':
      return 'The key is withdrawn from its holder within a second: its project answers 403 until the key is enabled.';
    case 'enable':
      return 'The key may be used again.';
    case 'restore':
      return 'The key is kept. It is disabled until you enable it.';
    case 'take-over':
      return 'The storage that you name becomes the holder of the key. The present holder is refused from then on. BunKMS waits while a released key may be in use, unless you force it.';
    case 'schedule':
      return 'The key may not be used from now on, and is destroyed in 30 days. Until then it can be restored.';
    case 'destroy':
      return isHeld
        ? 'A project is sealed under this key. Without it every document of the project, in every backup, is noise. To end a project in order, shred it in Bundoc’s console.'
        : 'All versions are destroyed. What was encrypted under them is noise from then on.';
  }
}

/** What the token may do with the key as it is. */
export function actionsOf({ state }: KeyDetail): readonly (readonly [Asked, string, boolean])[] {
  const all: (readonly [Asked, boolean, boolean])[] = [
    ['rotate', state === 'enabled' && may('kms:rotate_key'), false],
    ['enable', state === 'disabled' && may('kms:manage_key'), false],
    ['restore', state === 'pending_deletion' && may('kms:manage_key'), false],
    ['disable', state === 'enabled' && may('kms:manage_key'), false],
    ['take-over', state !== 'destroyed' && may('kms:manage_key'), true],
    ['schedule', (state === 'enabled' || state === 'disabled') && may('kms:destroy_key'), true],
    ['destroy', state !== 'destroyed' && may('kms:destroy_key'), true],
  ];
  return all
    .filter(([, isPossible]) => isPossible)
    .map(([action, , isGrave]) => [action, LABELS[action], isGrave]);
}

/** Asks whether something is to be done to a key, and how. */
export function ActionDialog({
  detail: { name, holder },
  asked,
  isBusy,
  error,
  onAct,
  onClose,
}: {
  readonly detail: KeyDetail;
  readonly asked: Asked;
  readonly isBusy: boolean;
  readonly error: unknown;
  readonly onAct: (call: Call) => void;
  readonly onClose: () => void;
}) {
  const own = path('keys', name);
  return (
    <Dialog title={TITLES[asked]} onClose={onClose}>
      <p>{explanationOf(asked, holder !== undefined)}</p>
      <Fault error={error} />
      {asked === 'destroy' ? (
        <TypedConfirmation
          name={name}
          what="key"
          action="Destroy for ever"
          isBusy={isBusy}
          onConfirm={() =>
            onAct({ method: 'DELETE', path: own, query: { pending_days: '0', confirm: name } })
          }
        />
      ) : null}
      {asked === 'take-over' ? (
        <TakeOver
          isBusy={isBusy}
          onConfirm={(storage, force) =>
            onAct({ method: 'POST', path: `${own}/take-over`, body: JSON.stringify({ storage, force }) })
          }
        />
      ) : null}
      <div class="dialog-end">
        <button type="button" onClick={onClose}>
          Cancel
        </button>
        {asked === 'destroy' || asked === 'take-over' ? null : (
          <button
            type="button"
            class={asked === 'schedule' ? 'danger' : 'primary'}
            disabled={isBusy}
            onClick={() =>
              onAct(
                asked === 'schedule'
                  ? { method: 'DELETE', path: own, query: { pending_days: '30' } }
                  : { method: 'POST', path: `${own}/${asked}` },
              )
            }
          >
            {LABELS[asked]}
          </button>
        )}
      </div>
    </Dialog>
  );
}

const STORAGE = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

function TakeOver({
  isBusy,
  onConfirm,
}: {
  readonly isBusy: boolean;
  readonly onConfirm: (storage: string, force: boolean) => void;
}) {
  const [storage, setStorage] = useState('');
  const [isForced, setIsForced] = useState(false);
  const isValid = STORAGE.test(storage.trim());
  return (
    <form
      class="confirm"
      onSubmit={(event) => {
        event.preventDefault();
        if (isValid && !isBusy) onConfirm(storage.trim(), isForced);
      }}
    >
      <TextField
        label="Id of the storage"
        hint="As /ready of its Bundoc says: storage_id."
        value={storage}
        onInput={setStorage}
      />
      <Check isChecked={isForced} onChange={setIsForced}>
        Do not wait for leases to end
      </Check>
      <button type="submit" class="danger" disabled={!isValid || isBusy}>
        {isBusy ? 'Working…' : 'Take over'}
      </button>
    </form>
  );
}
