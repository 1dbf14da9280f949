import { BUNKMS } from '../shell/service.ts';
import { StateView } from '../shell/state-view.tsx';

export function BunkmsStateView() {
  return <StateView service={BUNKMS} />;
}
