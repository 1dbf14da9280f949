import { fullestShare, levels, rates, requestKinds } from '../plots/kinds.ts';
import { Plots } from '../plots/plots.tsx';
import { BUNKMS } from '../shell/service.ts';
import { mayAsService } from '../shell/session.ts';
import { StateView } from '../shell/state-view.tsx';

const KINDS = [
  ...requestKinds('bunkms_http_request_duration_seconds'),
  rates(
    'Keys given out',
    ['exports', 'cryptographic items'],
    ['bunkms_exports_total', 'bunkms_crypto_items_total'],
  ),
  fullestShare('bunkms_'),
  levels('Waiting', ['for a share'], ['bunkms_share_waiting']),
  levels(
    'Unfinished',
    ['versions to wrap', 'deletions'],
    ['bunkms_key_versions_pending_rewrap', 'bunkms_deletion_intents_open'],
  ),
];

export function BunkmsStateView() {
  return (
    <StateView service={BUNKMS}>{mayAsService('kms:metrics') ? <Plots kinds={KINDS} /> : null}</StateView>
  );
}
