import { effect, signal } from '@preact/signals';

export type Theme = 'system' | 'light' | 'dark';

/** The only item that the console stores. */
const NAME = 'theme';

function stored(): Theme {
  try {
    const value = localStorage.getItem(NAME);
    return value === 'light' || value === 'dark' ? value : 'system';
  } catch {
    // Storage may be disabled.
    return 'system';
  }
}

export const theme = signal<Theme>(stored());

effect(() => {
  const chosen = theme.value;
  const { documentElement: root } = document;
  if (chosen === 'system') delete root.dataset['theme'];
  else root.dataset['theme'] = chosen;
  try {
    if (chosen === 'system') localStorage.removeItem(NAME);
    else localStorage.setItem(NAME, chosen);
  } catch {
    // Then the choice lasts until the page is closed.
  }
});
