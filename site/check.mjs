// Checks the site as it was built: every link leads somewhere, and nothing is loaded from elsewhere.

import { existsSync, globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const decoded = (text) => text.replaceAll('&amp;', '&').replaceAll('&#38;', '&');

/**
 * @param {string} dist
 * @returns {string[]} a line for each fault
 */
export function siteFaults(dist) {
  const files = globSync('**/*.{html,css}', { cwd: dist }).sort();
  const texts = new Map(files.map((file) => [file, readFileSync(join(dist, file), 'utf8')]));
  const ids = new Map();
  const idsOf = (file) => {
    if (!ids.has(file))
      ids.set(file, new Set([...(texts.get(file) ?? '').matchAll(/\sid="([^"]*)"/g)].map(([, id]) => id)));
    return ids.get(file);
  };
  return files.flatMap((file) => {
    const text = texts.get(file);
    const faults = [...loadsOf(text).filter((url) => /^(?:[a-z]+:)?\/\//i.test(url))].map(
      (url) => `${file} loads ${url}`,
    );
    for (const [, link] of text.matchAll(/<a\s[^>]*?href="([^"]*)"/g)) {
      const why = brokenBecause(decoded(link), file);
      if (why !== undefined) faults.push(`${file}: ${link}: ${why}`);
    }
    return faults;
  });

  function brokenBecause(link, from) {
    if (/^[a-z]+:/.test(link)) return undefined;
    const [path, anchor] = link.split('#');
    if (path !== '' && !path.startsWith('/')) return 'it is relative';
    const page = path.endsWith('/') ? `${path.slice(1)}index.html` : path.slice(1);
    const file = path === '' ? from : page;
    if (!existsSync(join(dist, file))) return 'there is no such page';
    // `_top` is the page itself in Starlight's list of contents.
    if (anchor !== undefined && !idsOf(file).has(decodeURIComponent(anchor)))
      return 'there is no such heading';
    return undefined;
  }
}

/** What a browser loads with a page or a style sheet without being asked. */
function loadsOf(text) {
  const attributes = text.matchAll(/<(?:script|img|source|iframe|video|audio|embed)\s[^>]*?\ssrc="([^"]*)"/g);
  const links = text.matchAll(/<link\s[^>]*?href="([^"]*)"[^>]*>/g);
  const styles = text.matchAll(/url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)/g);
  return [
    ...[...attributes].map(([, url]) => url),
    ...[...links].filter(([tag]) => !/rel="(?:canonical|alternate)"/.test(tag)).map(([, url]) => url),
    ...[...styles].map(([, url, imported]) => url ?? imported),
  ];
}
