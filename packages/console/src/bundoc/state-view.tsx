import { BUNDOC } from '../shell/service.ts';
import { StateView } from '../shell/state-view.tsx';

export function BundocStateView() {
  return <StateView service={BUNDOC} />;
}
