import { Plots } from '../plots/plots.tsx';
import { BUNDOC } from '../shell/service.ts';
import { mayAsService } from '../shell/session.ts';
import { StateView } from '../shell/state-view.tsx';

export function BundocStateView() {
  return <StateView service={BUNDOC}>{mayAsService('docs:metrics') ? <Plots /> : null}</StateView>;
}
