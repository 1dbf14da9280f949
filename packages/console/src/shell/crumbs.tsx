import { Name } from '../parts/basics.tsx';

/** The breadcrumbs of this view. */
export function Crumbs({
  steps,
}: {
  readonly steps: readonly { readonly name: string; readonly href: string }[];
}) {
  return (
    <nav class="crumbs" aria-label="Where this is">
      <ol>
        {steps.map(({ name, href }) => (
          <li key={href}>
            <a href={href}>
              <Name text={name} max={40} />
            </a>
          </li>
        ))}
      </ol>
    </nav>
  );
}

/** Tabs for the views of one object. */
export function Tabs({
  label,
  tabs,
  here,
}: {
  readonly label: string;
  readonly tabs: readonly (readonly [string, string])[];
  readonly here: string;
}) {
  return (
    <nav class="tabs" aria-label={label}>
      {tabs.map(([name, href]) => (
        <a key={href} href={href} {...(name === here ? { 'aria-current': 'page' as const } : {})}>
          {name}
        </a>
      ))}
    </nav>
  );
}
