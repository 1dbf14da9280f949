import { render } from 'preact';
import { Route, Router } from 'preact-iso';
import { Frame, type NavItem } from '../shell/frame.tsx';
import { Landing } from '../shell/landing.tsx';
import { NoView } from '../shell/no-view.tsx';
import { BUNKMS } from '../shell/service.ts';
import { may, mayAsService } from '../shell/session.ts';
import { AuditView } from './audit-view.tsx';
import { InspectView } from './inspect-view.tsx';
import { IssueView } from './issue-view.tsx';
import { KekView } from './kek-view.tsx';
import { KeyView } from './key-view.tsx';
import { KeysView } from './keys-view.tsx';
import { places } from './places.ts';
import { BunkmsStateView } from './state-view.tsx';
import { StoragesView } from './storages-view.tsx';
import { TokensView } from './tokens-view.tsx';

function nav(): readonly NavItem[] {
  return [
    ...(may('kms:read_key')
      ? [
          { href: places.keys(), name: 'Keys', below: '/console/keys/' },
          { href: places.storages(), name: 'Storages' },
        ]
      : []),
    ...(may('kms:audit') ? [{ href: places.audit(), name: 'Audit' }] : []),
    mayAsService('kms:admin')
      ? { href: places.tokens(), name: 'Tokens', below: '/console/tokens' }
      : { href: places.inspect(), name: 'Inspect a token' },
    ...(seesKeks() ? [{ href: places.kek(), name: 'KEK' }] : []),
    { href: places.state(), name: 'State' },
  ];
}

function first() {
  if (may('kms:read_key')) return KeysView;
  if (may('kms:audit')) return AuditView;
  if (mayAsService('kms:admin')) return TokensView;
  return seesKeks() ? KekView : BunkmsStateView;
}

function seesKeks(): boolean {
  return mayAsService('kms:manage_kek') || mayAsService('kms:admin');
}

function Console() {
  return (
    <Frame service={BUNKMS} nav={nav}>
      <Router>
        <Route path="/console/" component={first()} />
        <Route path="/console/keys/:name" component={KeyView} />
        <Route path="/console/storages" component={StoragesView} />
        <Route path="/console/audit" component={AuditView} />
        <Route path="/console/tokens" component={TokensView} />
        <Route path="/console/tokens/new" component={IssueView} />
        <Route path="/console/tokens/inspect" component={InspectView} />
        <Route path="/console/kek" component={KekView} />
        <Route path="/console/state" component={BunkmsStateView} />
        <Route default component={NoView} />
      </Router>
    </Frame>
  );
}

const root = document.querySelector('#app');
if (root === null) throw new Error('the page has no place for the console');
render(location.pathname === '/' ? <Landing service={BUNKMS} /> : <Console />, root);
