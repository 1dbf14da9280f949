import { Badge } from '../parts/basics.tsx';
import { useRequest } from '../parts/use-request.ts';
import { getOpen } from './api.ts';

type Ready = Readonly<Record<string, unknown>>;

/** One thing that must hold, and what to do when it does not. */
interface Check {
  readonly name: string;
  readonly isGood: boolean;
  readonly state: string;
  readonly advice: string;
}

/** The state of the service, asked again every few seconds. */
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
          ? 'Another copy of this storage is in use. Stop this one, or take the storage over with bunkms storage take-over.'
          : 'Look at the disk or the database: is there room, and may the service write?',
    },
    {
      name: 'BunKMS',
      isGood: kms === 'up',
      state: String(kms),
      advice:
        'Check that BunKMS runs and BUNDOC_KMS_URL is right. Projects whose key is cached work for 15 minutes more.',
    },
    {
      name: 'Events of BunKMS',
      isGood: events === 'live',
      state: String(events),
      advice:
        'Without events, a withdrawn key or revoked token is refused at the end of its time, not at once.',
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
      advice: 'The KEK does not fit the store. Put the right one into the ring and start BunKMS again.',
    },
    {
      name: 'Store',
      isGood: store === true,
      state: store === true ? 'takes writes' : 'fails',
      advice: 'Look at the disk or the database of BunKMS: is there room, and may the service write?',
    },
    {
      name: 'Audit chain',
      isGood: audit === true,
      state: audit === true ? 'takes records' : 'fails',
      advice: 'No key is released while its release cannot be recorded. Mend the store first.',
    },
  ];
}
