import { Empty, Head } from '../parts/basics.tsx';

export function NoView() {
  return (
    <>
      <Head title="Nothing here" />
      <Empty title="There is no such view">
        <a href="/console/">Go to the start</a>
      </Empty>
    </>
  );
}
