import { Badge } from '../parts/basics.tsx';
import { useRequest } from '../parts/use-request.ts';
import { getOpen } from './api.ts';

type Ready = Readonly<Record<string, unknown>>;

/** A condition, and what to do when it fails. */
interface Check {
  readonly name: string;
  readonly isGood: boolean;
  readonly state: string;
  readonly advice: string;
}

/** The state of the service, polled every few seconds. */
export function useReadiness() {
  return useRequest('ready', (signal) => getOpen<Ready>('/ready', signal), 5_000);
}

/** @param isPanel whether the list is a panel of its own. */
export function Checks({ ready, isPanel = false }: { readonly ready: Ready; readonly isPanel?: boolean }) {
  const checks = 'checks' in ready ? checksOfBunkms(ready) : checksOfBundoc(ready);
  return (
    <ul class={isPanel ? 'checks panel' : 'checks'}>
      {checks.map(({ name, isGood, state, advice }) => (
        <li key={name}>
          <span>{name}</span>
          <Badge kind={isGood ? 'good' : 'bad'}>{state}</Badge>
          {isGood ? null : <p class="muted">{advice}</p>}
        </li>
      ))}
    </ul>
  );
}

function checksOfBundoc({ storage, kms, kms_events: events, reason }: Ready): readonly Check[] {
  return [
    {
      name: 'Storage',
      isGood: storage === 'ok' && reason !== 'storage_superseded',
      state: reason === 'storage_superseded' ? 'superseded' : String(storage),
      advice:
        reason === 'storage_superseded'
          ? 'Another copy of this storage is in use. Stop this one, or take over the storage with bunkms storage take-over.'
          : 'Check the disk or the database: is there free space, and can the service write?',
    },
    {
      name: 'BunKMS',
      isGood: kms === 'up',
      state: String(kms),
      advice:
        'Check that BunKMS runs and that BUNDOC_KMS_URL is correct. Projects with a cached key work for up to 15 more minutes.',
    },
    {
      name: 'Events from BunKMS',
      isGood: events === 'live',
      state: String(events),
      advice:
        'Without events, a withdrawn key or revoked token is refused only when it expires, not at once.',
    },
  ];
}

function checksOfBunkms({ checks }: Ready): readonly Check[] {
  const { unsealed, store, audit } = checks as Readonly<Record<string, boolean>>;
  return [
    {
      name: 'KEK',
      isGood: unsealed === true,
      state: unsealed === true ? 'unsealed' : 'sealed',
      advice: 'The KEK does not fit the store. Put the right one into the ring and restart BunKMS.',
    },
    {
      name: 'Store',
      isGood: store === true,
      state: store === true ? 'writable' : 'fails',
      advice: 'Check the disk or the database of BunKMS: is there free space, and can the service write?',
    },
    {
      name: 'Audit chain',
      isGood: audit === true,
      state: audit === true ? 'writable' : 'fails',
      advice: 'No key is released while its release cannot be recorded. Repair the store first.',
    },
  ];
}
