/** A disclosure that opens a panel below its button; Escape and a click elsewhere close it. */

import { h } from '../core/dom.js';

/** `summary` is the button's content. */
export function menu({ id, label, summary, align = 'left' }, ...content) {
  return h('details', { class: `menu ${align}`, id, onkeydown: (event) => {
    if (event.key === 'Escape') close(event.currentTarget, true);
  } },
  h('summary', { 'aria-label': label, id: `${id}-button` }, summary),
  h('div', { class: 'menu-panel' }, content));
}

/** Close a menu; `refocus` puts the focus back on its button. */
export function close(details, refocus = false) {
  details.open = false;
  if (refocus) details.querySelector('summary').focus();
}

document.addEventListener('pointerdown', (event) => {
  document.querySelectorAll('details.menu[open]').forEach((details) => {
    if (!details.contains(event.target)) close(details);
  });
});
