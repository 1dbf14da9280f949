import { Empty, Head } from '../parts/basics.tsx';

export function NoView() {
  return (
    <>
      <Head title="Nothing here" />
      <Empty title="This view does not exist">
        <a href="/console/">Go to the start</a>
      </Empty>
    </>
  );
}
