import sax from 'sax';

export interface XmlElement {
  readonly name: string;
  /** Its own text, without that of its children. */
  readonly text: string;
  readonly children: readonly XmlElement[];
}

const ELEMENTS_MAX = 20_000;
const DEPTH_MAX = 16;

/**
 * The root element of a document. Attributes and comments are left out. A document type is refused, so there
 * are no entities but those of XML and of HTML.
 *
 * `sax` parses it: strict, released in 2026, 88 KB without dependencies. `fast-xml-parser` has seven packages
 * and 2.3 MB. `saxes` was last released in 2024, and `txml` accepts what is not well-formed.
 *
 * @returns undefined for what is not well-formed, and for more than {@link ELEMENTS_MAX} elements.
 */
export function parseXml(bytes: Uint8Array): XmlElement | undefined {
  const root = { name: '', text: '', children: [] as XmlElement[] };
  const open = [root];
  let elements = 0;
  const parser = sax.parser(true, {});
  const refuse = () => {
    throw new Error('not an XML document of S3');
  };
  parser.onerror = refuse;
  parser.ondoctype = refuse;
  parser.onopentag = ({ name }) => {
    elements += 1;
    if (elements > ELEMENTS_MAX || open.length > DEPTH_MAX) refuse();
    const element = { name, text: '', children: [] };
    open.at(-1)?.children.push(element);
    open.push(element);
  };
  parser.onclosetag = () => open.pop();
  parser.ontext = parser.oncdata = (text) => {
    const element = open.at(-1);
    if (element !== undefined) element.text += text;
  };
  try {
    parser.write(new TextDecoder('utf-8', { fatal: true }).decode(bytes)).close();
    return root.children[0];
  } catch {
    return undefined;
  }
}

/** The text of a child, without space around it. @returns undefined when there is none. */
export function textOf(element: XmlElement | undefined, name: string): string | undefined {
  return element?.children.find((child) => child.name === name)?.text.trim();
}
