import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { LocationProvider, useLocation } from 'preact-iso';
import { isReachable, isSlow } from './api.ts';
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

/**
 * Puts the focus on the heading of a view, so that a screen reader says its name: at once, or when the view
 * has loaded, unless its user has gone elsewhere by then. @returns what ends the wait.
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
          <TokenPanel />
          <ThemeSwitch />
        </div>
      </header>
      <p class="banner" role="status">
        {isReachable.value
          ? isSlow.value
            ? `${service.name} takes long to answer. What is shown may be old.`
            : ''
          : `${service.name} does not answer. What is shown may be old. The console tries again by itself.`}
      </p>
      <main id="content" ref={content}>
        {children}
      </main>
      <RequestLog />
      <Renewal service={service} />
    </>
  );
}
