/** Asks for an API key when /v1 answers 401, and forgets it on demand. */

import { apiKey, setApiKey } from '../core/api.js';
import { h } from '../core/dom.js';

let dialog = null;

/** Show the dialog (once); `onKey` runs after a key was given or forgotten. */
export function askForKey(reason, onKey) {
  if (dialog?.open) {
    dialog.querySelector('.form-error').textContent = reason;
    return;
  }
  dialog?.remove();
  const input = h('input', { type: 'password', id: 'key-input', autocomplete: 'off', spellcheck: 'false', required: true,
    pattern: '\\S+', 'aria-describedby': 'key-error key-hint' });
  dialog = h('dialog', { class: 'dialog', 'aria-labelledby': 'key-title', id: 'key-dialog' },
    h('form', { method: 'dialog', onsubmit: (event) => {
      event.preventDefault();
      setApiKey(input.value.trim());
      dialog.close();
      onKey();
    } },
    h('h2', { id: 'key-title' }, 'API key'),
    h('p', { class: 'form-error', id: 'key-error', role: 'alert' }, reason),
    h('label', { class: 'field' }, h('span', null, 'Key'), input),
    h('p', { class: 'hint', id: 'key-hint' }, 'It starts with ', h('code', null, 'gta_'), ' and is kept in this tab only. Make one with ',
      h('code', null, 'gpu-tokens keys create'), '.'),
    h('div', { class: 'actions' },
      h('button', { type: 'submit', class: 'primary' }, 'Use this key'),
      apiKey() ? h('button', { type: 'button', id: 'key-forget', onclick: () => {
        setApiKey(null);
        dialog.close();
        onKey();
      } }, 'Forget the key') : null,
      h('button', { type: 'button', id: 'key-cancel', onclick: () => dialog.close() }, 'Cancel'))));
  document.body.append(dialog);
  dialog.showModal();
  input.focus();
}
