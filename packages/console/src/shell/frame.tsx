import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { LocationProvider, useLocation } from 'preact-iso';
import { isReachable } from '../parts/use-request.ts';
import { isSlow } from './api.ts';
import { RequestLog } from './request-log.tsx';
import type { Service } from './service.ts';
import { session } from './session.ts';
import { Renewal, SignIn } from './sign-in.tsx';
import { ThemeSwitch } from './theme-switch.tsx';
import { TokenPanel } from './token-panel.tsx';

export interface NavItem {
  readonly href: string;
  readonly name: string;
  /** Prefix of further paths for which the item is active. */
  readonly below?: string;
}

/** The frame around the views: the session, the navigation and the request log. */
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

/**
 * Moves the focus to the heading of a view, so that a screen reader announces it. It waits until the view has
 * loaded, unless the user has moved on. @returns a function that ends the wait.
 */
function focusHeading(view: HTMLElement): () => void {
  const focus = () => {
    const heading = view.querySelector<HTMLElement>('h1');
    heading?.focus();
    return heading !== null;
  };
  const { activeElement: begin, body } = document;
  const observer = new MutationObserver(() => {
    const { activeElement: now } = document;
    if ((now !== begin && now !== body) || focus()) observer.disconnect();
  });
  if (!focus()) observer.observe(view, { childList: true, subtree: true });
  return () => observer.disconnect();
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
  useEffect(() => {
    window.scrollTo(0, 0);
    return content.current === null ? undefined : focusHeading(content.current);
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
          <TokenPanel service={service} />
          <ThemeSwitch />
        </div>
      </header>
      <p class="banner" role="status">
        {isReachable.value
          ? isSlow.value
            ? `${service.name} answers slowly. The data shown may be stale.`
            : ''
          : `${service.name} does not answer. The data shown may be stale. The console retries automatically.`}
      </p>
      <main id="content" ref={content}>
        {children}
      </main>
      <footer>
        <RequestLog />
      </footer>
      <Renewal service={service} />
    </>
  );
}
