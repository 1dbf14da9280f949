import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { LocationProvider, useLocation } from 'preact-iso';
import { isReachable } from './api.ts';
import { RequestLog } from './request-log.tsx';
import type { Service } from './service.ts';
import { session } from './session.ts';
import { Renewal, SignIn } from './sign-in.tsx';
import { ThemeSwitch } from './theme-switch.tsx';
import { TokenPanel } from './token-panel.tsx';

export interface NavItem {
  readonly href: string;
  readonly name: string;
  /** Paths that the item stands for besides its own begin so. */
  readonly below?: string;
}

/** The frame around the views: who one is, where one may go, what was asked. */
export function Frame({
  service,
  nav,
  children,
}: {
  readonly service: Service;
  readonly nav: () => readonly NavItem[];
  readonly children: ComponentChildren;
}) {
  return (
    <LocationProvider scope="/console">
      {session.value === undefined ? (
        <>
          <header class="top">
            <Home service={service} />
            <ThemeSwitch />
          </header>
          <SignIn service={service} />
        </>
      ) : (
        <SignedIn service={service} nav={nav}>
          {children}
        </SignedIn>
      )}
    </LocationProvider>
  );
}

function Home({ service }: { readonly service: Service }) {
  return (
    <a class="home" href="/console/">
      <span class="mark" aria-hidden="true" />
      {service.name}
    </a>
  );
}

function SignedIn({
  service,
  nav,
  children,
}: {
  readonly service: Service;
  readonly nav: () => readonly NavItem[];
  readonly children: ComponentChildren;
}) {
  const { path } = useLocation();
  const content = useRef<HTMLElement>(null);
  const before = useRef(path);
  // A screen reader says the name of the view.
  useEffect(() => {
    if (before.current === path) return;
    before.current = path;
    content.current?.querySelector<HTMLElement>('h1')?.focus();
    window.scrollTo(0, 0);
  }, [path]);
  return (
    <>
      <a class="skip" href="#content">
        Skip to the content
      </a>
      <header class="top">
        <Home service={service} />
        <nav aria-label="Views">
          {nav().map(({ href, name, below }) => {
            const isHere =
              path === href.replace(/\/$/, '') || (below !== undefined && path.startsWith(below));
            return (
              <a key={href} href={href} {...(isHere ? { 'aria-current': 'page' as const } : {})}>
                {name}
              </a>
            );
          })}
        </nav>
        <div class="top-end">
          <TokenPanel />
          <ThemeSwitch />
        </div>
      </header>
      {isReachable.value ? null : (
        <p class="banner" role="status">
          {service.name} does not answer. What is shown may be old.
        </p>
      )}
      <main id="content" ref={content}>
        {children}
      </main>
      <RequestLog />
      <Renewal service={service} />
    </>
  );
}
