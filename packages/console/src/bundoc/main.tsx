import { render } from 'preact';
import { Route, Router } from 'preact-iso';
import { Frame, type NavItem } from '../shell/frame.tsx';
import { Landing } from '../shell/landing.tsx';
import { NoView } from '../shell/no-view.tsx';
import { BUNDOC } from '../shell/service.ts';
import { may } from '../shell/session.ts';
import { ChangesView } from './changes-view.tsx';
import { CollectionView } from './collection-view.tsx';
import { DefinitionView } from './definition-view.tsx';
import { DocumentView } from './document-view.tsx';
import { ImportView } from './import-view.tsx';
import { NewDocumentView } from './new-document-view.tsx';
import { OperationsView } from './operations-view.tsx';
import { places } from './places.ts';
import { ProjectView } from './project-view.tsx';
import { ProjectsView } from './projects-view.tsx';
import { QueryView } from './query-view.tsx';
import { ReceiptView } from './receipt-view.tsx';
import { ShredView } from './shred-view.tsx';
import { BundocStateView } from './state-view.tsx';

const PROJECT = '/console/projects/:project';
const COLLECTION = `${PROJECT}/collections/:collection`;

function nav(): readonly NavItem[] {
  return [
    ...(may('docs:read')
      ? [
          { href: places.projects(), name: 'Projects', below: '/console/projects/' },
          { href: places.receipt(), name: 'Receipt' },
        ]
      : []),
    { href: places.state(), name: 'State' },
  ];
}

function Console() {
  return (
    <Frame service={BUNDOC} nav={nav}>
      <Router>
        <Route path="/console/" component={may('docs:read') ? ProjectsView : BundocStateView} />
        <Route path="/console/state" component={BundocStateView} />
        <Route path="/console/receipt" component={ReceiptView} />
        <Route path={PROJECT} component={ProjectView} />
        <Route path={`${PROJECT}/changes`} component={ChangesView} />
        <Route path={`${PROJECT}/operations`} component={OperationsView} />
        <Route path={`${PROJECT}/shred`} component={ShredView} />
        <Route path={COLLECTION} component={CollectionView} />
        <Route path={`${COLLECTION}/query`} component={QueryView} />
        <Route path={`${COLLECTION}/definition`} component={DefinitionView} />
        <Route path={`${COLLECTION}/import`} component={ImportView} />
        <Route path={`${COLLECTION}/new`} component={NewDocumentView} />
        <Route path={`${COLLECTION}/documents/:id`} component={DocumentView} />
        <Route default component={NoView} />
      </Router>
    </Frame>
  );
}

const root = document.querySelector('#app');
if (root === null) throw new Error('the page has no place for the console');
render(location.pathname === '/' ? <Landing service={BUNDOC} /> : <Console />, root);
