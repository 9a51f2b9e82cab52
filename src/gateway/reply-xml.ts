import {
  parseXml,
  XmlCdata,
  XmlComment,
  XmlDocumentType,
  XmlElement,
  XmlProcessingInstruction,
  XmlText,
  type XmlNode,
} from '@rgrove/parse-xml';
import { ReplyFault, type Found } from './reply-fault.ts';

const MAX_DEPTH = 4;
const MAX_ELEMENTS = 64;

/**
 * Reads the XML formats: one SMS, its id as an attribute or as an element; `detail` elements; parallel lists of ids and states. `asked` selects one of several.
 * The parser is strict, expands only XML's five entities, and gets at most 16 KiB. It recurses, so documents with a DOCTYPE or too many elements are rejected
 * before. Throws a ReplyFault.
 */
export function readXml(text: string, asked: string | undefined): Found {
  if (/<!DOCTYPE/i.test(text)) throw new ReplyFault('doctype');
  if ((text.match(/<[^!?/]/g) ?? []).length > MAX_ELEMENTS) throw new ReplyFault('too_many_elements');
  const root = rootOf(text);
  if (root.name !== 'status') throw new ReplyFault('root');
  const date = dateOf(root);
  const details = childrenOf(root, 'detail');
  if (details.length > 0) {
    const ours = details.filter((detail) => asked === undefined || textsOf(detail, 'id').includes(asked));
    const [detail] = ours;
    if (detail === undefined) throw new ReplyFault('mismatch');
    if (ours.length > 1) throw new ReplyFault('two_states');
    return { ...pick(detail, undefined, asked), date };
  }
  return { ...pick(root, root.attributes['id'], asked), date };
}

/** The id and the state in one element: single values, or those of `asked` in two parallel lists. */
function pick(parent: XmlElement, ownId: string | undefined, asked: string | undefined): Omit<Found, 'date'> {
  const states = childrenOf(parent, 'state');
  const ids = textsOf(parent, 'id');
  if (states.length === 0) throw new ReplyFault('no_state');
  if (ownId !== undefined && ids.some((id) => id !== ownId)) throw new ReplyFault('lists');
  if (ids.length > 1) {
    if (ids.length !== states.length) throw new ReplyFault('lists');
    const at = asked === undefined ? 0 : ids.indexOf(asked);
    if (at < 0) throw new ReplyFault('mismatch');
    if (asked === undefined || ids.lastIndexOf(asked) !== at) throw new ReplyFault('two_states');
    return { id: ids[at], ...stateOf(states[at]) };
  }
  if (states.length > 1) throw new ReplyFault('two_states');
  const id = ownId ?? ids[0];
  return { id: id === undefined || id === '' ? undefined : bounded(id, 64), ...stateOf(states[0]) };
}

function stateOf(state: XmlElement | undefined): { word: string; error: string | undefined } {
  if (state === undefined) throw new ReplyFault('no_state');
  const word = textOf(state);
  if (word === '') throw new ReplyFault('no_state');
  const error = state.attributes['error'];
  return { word, error: error === undefined ? undefined : error.slice(0, 400) };
}

function rootOf(text: string): XmlElement {
  let document;
  try {
    document = parseXml(text, { preserveDocumentType: true });
  } catch {
    throw new ReplyFault('xml');
  }
  const { root } = document;
  if (root === null) throw new ReplyFault('xml');
  for (const child of document.children) check(child, 1);
  return root;
}

function check(node: XmlNode, depth: number): void {
  if (node instanceof XmlDocumentType) throw new ReplyFault('doctype');
  if (node instanceof XmlProcessingInstruction) throw new ReplyFault('instruction');
  if (!(node instanceof XmlElement)) return;
  if (depth > MAX_DEPTH) throw new ReplyFault('too_deep');
  for (const child of node.children) check(child, depth + 1);
}

function childrenOf(parent: XmlElement, name: string): XmlElement[] {
  return parent.children.filter((child): child is XmlElement => child instanceof XmlElement && child.name === name);
}

function textsOf(parent: XmlElement, name: string): string[] {
  return childrenOf(parent, name).map((child) => bounded(textOf(child), 64));
}

/** Text and CDATA. Throws if there is an element inside. */
function textOf(element: XmlElement): string {
  let text = '';
  for (const child of element.children) {
    if (child instanceof XmlText || child instanceof XmlCdata) text += child.text;
    else if (!(child instanceof XmlComment)) throw new ReplyFault('xml');
  }
  return bounded(text.trim(), 200);
}

/** A date that is too long counts as empty, so that it does not invalidate the status. */
function dateOf(element: XmlElement): string {
  const date = element.attributes['date'] ?? '';
  return date.length > 100 ? '' : date;
}

function bounded(text: string, length: number): string {
  if (text.length > length) throw new ReplyFault('xml');
  return text;
}
