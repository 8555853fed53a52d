/** The form that sets a budget. */

import { post } from '../core/api.js';
import { h } from '../core/dom.js';
import { money } from '../core/format.js';

const SCOPES = [['fleet', 'The fleet (all money)'], ['team', 'A team'], ['tenant', 'A tenant'], ['model', 'A model']];
const PERIODS = [['month', 'Month'], ['week', 'Week (from Monday)'], ['day', 'Day']];
const KNOWN = { tenant: 'tenants', model: 'models' };

function field(label, input, hint) {
  return h('label', { class: 'field' }, h('span', null, label), input, hint ? h('span', { class: 'hint' }, hint) : null);
}

function select(name, options) {
  return h('select', { id: `budget-${name}`, name }, options.map(([value, text]) => h('option', { value }, text)));
}

/** `onSet()` runs after one was stored. Kept across refreshes while it is being filled in. */
export function budgetForm({ zone, dimensions, onSet }) {
  const key = h('input', { id: 'budget-key', name: 'key', list: 'budget-keys', maxlength: '256', autocomplete: 'off', spellcheck: 'false' });
  const keys = h('datalist', { id: 'budget-keys' });
  const keyField = field('Which one', key);
  const message = h('div', { class: 'form-message', id: 'budget-message', role: 'alert' });
  const submit = h('button', { type: 'submit', class: 'primary', id: 'budget-submit' }, 'Set');
  const zones = [...new Set(['UTC', zone])].map((name) => [name, name]);

  const form = h('form', { class: 'price-form', id: `budget-form-${zone}`, 'data-keep': true, oninput: adapt, onsubmit: async (event) => {
    event.preventDefault();
    await send();
  } },
  h('div', { class: 'form-row' },
    field('Name', h('input', { id: 'budget-name', name: 'name', required: true, maxlength: '64', pattern: '[A-Za-z0-9][A-Za-z0-9 ._\\-]*', autocomplete: 'off' })),
    field('Of', select('scope', SCOPES)), keyField, keys,
    field('USD', h('input', { id: 'budget-usd', name: 'limit_usd', inputmode: 'decimal', pattern: '\\d{1,10}(\\.\\d{1,9})?', required: true, placeholder: '5000', autocomplete: 'off' })),
    field('Each', select('period', PERIODS)), field('Time zone', select('time_zone', zones))),
  h('div', { class: 'form-row' },
    field('Tell at percent', h('input', { id: 'budget-at', name: 'at', value: '50, 80, 100', pattern: '[\\d ,]*', autocomplete: 'off' })),
    h('label', { class: 'field inline' }, h('input', { type: 'checkbox', id: 'budget-forecast', name: 'forecast', checked: true }), h('span', null, 'Tell when the forecast passes the limit')),
    h('div', { class: 'form-actions' }, submit)),
  message);

  const value = (name) => form.elements[name].value.trim();

  function adapt() {
    const scope = value('scope');
    keyField.hidden = scope === 'fleet';
    key.required = scope !== 'fleet';
    keys.replaceChildren(...(dimensions?.[KNOWN[scope]] ?? []).map((name) => h('option', { value: name })));
    message.replaceChildren();
  }

  function read() {
    return {
      name: value('name'), scope: value('scope'), key: value('scope') === 'fleet' ? null : value('key'), period: value('period'),
      time_zone: value('time_zone'), limit_usd: value('limit_usd'),
      thresholds: value('at').split(',').map((text) => text.trim()).filter(Boolean).map(Number), forecast_alert: form.elements.forecast.checked,
    };
  }

  async function send() {
    submit.disabled = true;
    try {
      const stored = await post('budgets', read());
      form.reset();
      adapt();
      message.replaceChildren(h('p', { class: 'notice good' }, `Set: ${stored.name}, ${money(stored.limit_nusd)} each ${stored.period}.`));
      onSet();
    } catch (error) {
      message.replaceChildren(h('p', { class: 'notice bad' }, error.detail || error.message),
        h('ul', null, (error.errors ?? []).map((item) => h('li', null, item.message))));
    } finally {
      submit.disabled = false;
    }
  }

  adapt();
  return form;
}
