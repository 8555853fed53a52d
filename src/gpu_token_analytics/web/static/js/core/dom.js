/**
 * Elements without innerHTML: text from the API is always text and can never become markup (the page also asks the browser
 * to refuse anything else, see require-trusted-types-for in mount.py).
 */

const SVG_NAMESPACE = 'http://www.w3.org/2000/svg';
const HANDLERS = ['onclick', 'onchange', 'oninput', 'onkeydown', 'onsubmit', 'ontoggle', 'onpointermove', 'onpointerleave',
  'onpointerdown', 'onpointerup', 'onfocus', 'onblur'];

// What acts instead of showing (the same set as foreign_text.py): controls, separators of lines, changes of direction, no width.
const ACTING = /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

const SPOKEN = new Set(['title', 'aria-label', 'placeholder', 'alt']);

/** Text that others wrote, as it is shown: characters that act become escapes that can be seen. */
export function visible(text) {
  return text.replace(ACTING, (found) => {
    const code = found.codePointAt(0);
    if (found === '\n') return '\\n';
    if (code > 0xffff) return `\\U${code.toString(16).padStart(8, '0')}`;
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`;
  });
}

function fill(node, props, children) {
  const late = {};
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node[name] = value;
    else if (name === 'vars') Object.entries(value).forEach(([key, text]) => node.style.setProperty(key, text));
    else if (name === 'value' || name === 'checked' || name === 'draw') late[name] = value;
    else node.setAttribute(name, value === true ? '' : SPOKEN.has(name) ? visible(String(value)) : String(value));
  }
  append(node, children);
  Object.assign(node, late); // a select's value needs its options first
  node.given = late.value ?? late.checked;
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(visible(String(child))));
  }
}

/** An HTML element. `vars` sets CSS properties, `on...` handlers, null and false leave an attribute out. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** An SVG element. */
export function s(tag, props, ...children) {
  return fill(document.createElementNS(SVG_NAMESPACE, tag), props, children);
}

/** Text of the API in which `backticks` mark code. */
export function marked(text) {
  return text.split('`').map((part, index) => (index % 2 === 1 ? h('code', null, part) : part));
}

/** Something that only screen readers read. */
export function srOnly(...children) {
  return h('span', { class: 'sr-only' }, ...children);
}

/**
 * Make `old` equal to `next`, touching only what differs: focus, scroll positions, open disclosures and text being typed
 * survive a refresh. Handlers are properties (never addEventListener), so they move along.
 */
export function morph(old, next) {
  if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName || idOf(old) !== idOf(next)) {
    old.replaceWith(next);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE || kept(old)) return;
  morphAttributes(old, next);
  if (old instanceof ChartHost) {
    old.draw = next.draw;
    return;
  }
  morphChildren(old, next);
  morphValue(old, next);
}

// Not `node.id`: in a form that is the field named `id`.
function idOf(node) {
  return node?.getAttribute?.('id') ?? '';
}

/** `data-keep`: never touched again. `data-keep-open`: not while the disclosure around it is open. */
function kept(node) {
  return node.hasAttribute('data-keep') || (node.hasAttribute('data-keep-open') && node.closest('details')?.open);
}

function morphAttributes(old, next) {
  const ours = (name) => name === 'style' || (name === 'open' && old.nodeName === 'DETAILS'); // open: the reader's choice
  for (const { name } of [...old.attributes]) {
    if (!ours(name) && !next.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (!ours(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.style && old.style.cssText !== next.style.cssText) old.style.cssText = next.style.cssText;
  for (const handler of HANDLERS) {
    if (old[handler] !== next[handler]) old[handler] = next[handler];
  }
}

function morphChildren(old, next) {
  const wanted = [...next.childNodes]; // taken once: placing a node moves it out of `next`
  wanted.forEach((child, index) => {
    let place = old.childNodes[index];
    if (idOf(child) && idOf(place) !== idOf(child)) {
      const known = [...old.childNodes].find((node) => idOf(node) === idOf(child));
      if (known) {
        old.insertBefore(known, place);
        place = known;
      } else if (place) {
        old.insertBefore(child, place);
        return;
      }
    }
    if (place) morph(place, child);
    else old.append(child);
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

// What was given before and is given again is left alone: the reader may be changing it.
function morphValue(old, next) {
  if (old.given === next.given) return;
  old.given = next.given;
  if ('value' in next && old.value !== next.value) old.value = next.value;
  if ('checked' in next && old.checked !== next.checked) old.checked = next.checked;
}

/** `<x-chart>`: draws itself for its own width, again when that changes. `draw(width)` returns a node. */
export class ChartHost extends HTMLElement {
  #draw = null;
  #width = 0;
  #observer = new ResizeObserver(() => this.#resized());

  set draw(value) {
    this.#draw = value;
    this.#paint();
  }

  get draw() {
    return this.#draw;
  }

  connectedCallback() {
    this.#observer.observe(this);
    this.#resized();
  }

  disconnectedCallback() {
    this.#observer.disconnect();
  }

  #resized() {
    const width = Math.floor(this.clientWidth);
    if (width === this.#width) return;
    this.#width = width;
    this.#paint();
  }

  #paint() {
    if (this.#width <= 0 || !this.#draw) return;
    const next = this.#draw(this.#width);
    if (this.firstChild) morph(this.firstChild, next); // keeps the focus and the cursor of who is reading it
    else this.append(next);
  }
}
customElements.define('x-chart', ChartHost);
