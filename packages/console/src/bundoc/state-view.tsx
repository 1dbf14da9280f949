import { fullestShare, levels, rates, readsAndWrites, requestKinds } from '../plots/kinds.ts';
import { Plots } from '../plots/plots.tsx';
import { BUNDOC } from '../shell/service.ts';
import { mayAsService } from '../shell/session.ts';
import { StateView } from '../shell/state-view.tsx';

const KINDS = [
  ...requestKinds('bundoc_http_request_duration_seconds'),
  readsAndWrites('bundoc_http_request_duration_seconds'),
  rates('Log', ['commits', 'syncs'], ['bundoc_log_commits_total', 'bundoc_log_frames_total']),
  fullestShare('bundoc_'),
  levels('Waiting', ['for a share', 'for a project'], ['bundoc_share_waiting', 'bundoc_openings_waiting']),
  levels('In memory', ['open projects', 'keys'], ['bundoc_projects_open', 'bundoc_keys_cached']),
];

export function BundocStateView() {
  return (
    <StateView service={BUNDOC}>{mayAsService('docs:metrics') ? <Plots kinds={KINDS} /> : null}</StateView>
  );
}
