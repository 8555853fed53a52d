/** The form that appends a price row. Appending cannot be undone, so it asks once more and says what will happen. */

import { post } from '../core/api.js';
import { h } from '../core/dom.js';
import { priceGiven } from '../core/format.js';
import { fromInput, iso, moment, toInput } from '../core/time.js';

const SCOPES = [['name', 'A GPU type'], ['host', 'One host'], ['gpu', 'One GPU'], ['default', 'Everything else (default)']];
const MODES = [['on_demand', 'On demand'], ['reserved', 'Reserved'], ['spot', 'Spot'], ['owned', 'Owned']];
const KNOWN = { name: 'gpu_names', host: 'hosts', gpu: 'gpus' };
const AMOUNT = '\\d{1,6}(\\.\\d{1,9})?';

function field(label, input, hint) {
  return h('label', { class: 'field' }, h('span', null, label), input, hint ? h('span', { class: 'hint' }, hint) : null);
}

function select(name, options) {
  return h('select', { id: `price-${name}`, name }, options.map(([value, text]) => h('option', { value }, text)));
}

/** `onAdded()` runs after a row was stored. Kept across refreshes while it is being filled in. */
export function priceForm({ zone, dimensions, onAdded }) {
  const key = h('input',
    { id: 'price-key', name: 'key', list: 'price-keys', maxlength: '256', required: true, autocomplete: 'off', spellcheck: 'false' });
  const keys = h('datalist', { id: 'price-keys' });
  const keyField = field('Which one', key);
  const owned = h('div', { class: 'form-row', hidden: true },
    field('Electricity, USD per kWh', h('input',
      { id: 'price-kwh', name: 'usd_per_kwh', inputmode: 'decimal', pattern: AMOUNT }), 'paid on top of the hourly price'),
    field('PUE', h('input',
      { id: 'price-pue', name: 'pue', type: 'number', min: '1', max: '5', step: 'any' }), 'power of the room / power of the machines'));
  const message = h('div', { class: 'form-message', id: 'price-message', role: 'alert' });
  const submit = h('button', { type: 'submit', class: 'primary', id: 'price-submit' }, 'Review');
  let confirmed = null; // the row the reader has seen and not changed since

  const form = h('form', { class: 'price-form', id: `price-form-${zone}`, 'data-keep': true, oninput: reset, onsubmit: async (event) => {
    event.preventDefault();
    const row = read();
    if (!row) return;
    if (confirmed === null) {
      confirmed = row;
      submit.textContent = 'Append this row';
      message.replaceChildren(h('p', { class: 'notice' }, summary(row)));
      return;
    }
    await send(row);
  } },
  h('div', { class: 'form-row' }, field('For', select('scope', SCOPES)), keyField, keys,
    field('USD per GPU-hour', h('input',
      { id: 'price-usd', name: 'usd_per_hour', inputmode: 'decimal', pattern: AMOUNT, required: true, placeholder: '2.49', autocomplete: 'off' })),
    field('Mode', select('mode', MODES))),
  owned,
  h('div', { class: 'form-row' },
    field(`From (${zone})`, h('input', { id: 'price-from', name: 'from', type: 'datetime-local', required: true,
      value: toInput(Date.now(), zone) })),
    field('Until (optional)', h('input', { id: 'price-to', name: 'to', type: 'datetime-local' })),
    h('div', { class: 'form-actions' }, submit)),
  message);

  const value = (name) => form.elements[name].value.trim();

  function reset() {
    const scope = value('scope');
    keyField.hidden = scope === 'default';
    key.required = scope !== 'default';
    keys.replaceChildren(...(dimensions?.[KNOWN[scope]] ?? []).map((name) => h('option', { value: name })));
    owned.hidden = value('mode') !== 'owned';
    confirmed = null;
    submit.textContent = 'Review';
    message.replaceChildren();
  }

  function read() {
    const [from, to] = [fromInput(value('from'), zone), value('to') ? fromInput(value('to'), zone) : null];
    if (to !== null && to <= from) {
      message.replaceChildren(h('p', { class: 'notice bad' }, '“Until” must be later than “From”.'));
      return null;
    }
    const isOwned = value('mode') === 'owned';
    return {
      scope: value('scope'), key: value('scope') === 'default' ? null : value('key'),
        usd_per_hour: value('usd_per_hour'), mode: value('mode'),
      usd_per_kwh: isOwned && value('usd_per_kwh') ? value('usd_per_kwh') : null,
        pue: isOwned && value('pue') ? Number(value('pue')) : null,
      valid_from: iso(from), valid_to: to === null ? null : iso(to),
    };
  }

  function summary(row) {
    const target = row.key ?? 'every GPU without a more specific row';
    const past = Date.parse(row.valid_from) < Date.now() - 60_000;
    return [`${priceGiven(row.usd_per_hour)} per GPU-hour for ${target} from ${moment(Date.parse(row.valid_from), zone)}. `,
      past ? h('strong', null, 'It begins in the past: open cells since then are computed again, and final ones get a correction, as far back as raw events are kept. ') : null,
      'A row cannot be changed or removed; a later row can replace it.'];
  }

  async function send(row) {
    submit.disabled = true;
    try {
      const stored = await post('prices', row);
      form.reset();
      form.elements.from.value = toInput(Date.now(), zone);
      reset();
      message.replaceChildren(h('p', { class: 'notice good' }, `Added row ${stored.id}. `, stored.pending ? 'Cells it touches are being computed again.' : ''));
      onAdded();
    } catch (error) {
      confirmed = null;
      submit.textContent = 'Review';
      message.replaceChildren(h('p', { class: 'notice bad' }, error.detail || error.message),
        h('ul', null, (error.errors ?? []).map((item) => h('li', null, `${item.field}: ${item.message}`))));
    } finally {
      submit.disabled = false;
    }
  }

  reset();
  return form;
}
