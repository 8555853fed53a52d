/** What forms that write into books share: labelled fields, sending, and what came of it. */

import { post } from '../core/api.js';
import { h } from '../core/dom.js';

/** An input with its name, and what to know of it. */
export function field(label, input, hint) {
  return h('label', { class: 'field' }, h('span', null, label), input, hint ? h('span', { class: 'hint' }, hint) : null);
}

/** A choice of `[value, text]`. */
export function select(id, name, options) {
  return h('select', { id, name }, options.map(([value, text]) => h('option', { value }, text)));
}

/** A line of text. */
export function text(id, name, props = {}) {
  return h('input', { id, name, maxlength: '256', autocomplete: 'off', spellcheck: 'false', ...props });
}

/**
 * A form that sends one row to a route of /v1 and says what came of it. `read(value)` makes the row of the fields (`value(name)`
 * is one's text), `said(stored)` the words, `adapt(form)` shows and hides. Kept across refreshes while it is filled in.
 */
export function bookForm({ id, route, rows, read, said, adapt, onStored, label = 'Add' }) {
  const message = h('div', { class: 'form-message', id: `${id}-message`, role: 'alert' });
  const submit = h('button', { type: 'submit', class: 'primary', id: `${id}-submit` }, label);
  const change = () => {
    adapt?.(form);
    message.replaceChildren();
  };
  const form = h('form', { class: 'price-form', id, 'data-keep': true, oninput: change, onsubmit: (event) => {
    event.preventDefault();
    return send();
  } }, rows.map((row, index) => h('div', { class: 'form-row' }, row, index === rows.length - 1 ? h('div', { class: 'form-actions' }, submit) : null)), message);

  async function send() {
    submit.disabled = true;
    try {
      const stored = await post(route, read((name) => form.elements[name].value.trim()));
      form.reset();
      change();
      message.replaceChildren(h('p', { class: 'notice good' }, said(stored)));
      onStored();
    } catch (error) {
      message.replaceChildren(h('p', { class: 'notice bad' }, error.detail || error.message),
        h('ul', null, (error.errors ?? []).map((item) => h('li', null, item.message))));
    } finally {
      submit.disabled = false;
    }
  }

  change();
  return form;
}
