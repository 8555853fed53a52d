/** Time range, time zone and filters: what the address says about the selection, and the ways to change it. */

import { h, srOnly } from '../core/dom.js';
import { FILTERS, go, hrefWith } from '../core/state.js';
import { fromInput, iso, localZone, moment, PRESETS, rangeText, toInput } from '../core/time.js';
import { CLASSES, classOf } from './classes.js';
import { close, menu } from './menu.js';

const NAMES = { model: 'Model', tenant: 'Tenant', gpu: 'GPU', host: 'Host', gpu_name: 'GPU type', class: 'Class' };
const PLURAL = { model: 'models', tenant: 'tenants', gpu: 'gpus', host: 'hosts', gpu_name: 'gpu_names' };
const MOST_SHOWN = 200;
const searched = {}; // text in each filter's search box

/** The bar under the header. `dimensions` may still be loading (null). */
export function toolbar(state, dimensions, names = FILTERS, compares = false) {
  return h('div', { class: 'toolbar', role: 'group', 'aria-label': 'Selection' },
    rangeMenu(state), compares ? compareSwitch(state) : null, names.length ? [filterMenu(state, dimensions, names), chips(state)] : null);
}

function compareSwitch({ compare }) {
  return h('button', { type: 'button', id: 'compare', class: 'toggle', 'aria-pressed': String(compare), title: 'A month beside the month before, a week beside the week before, else as long right before',
    onclick: () => go(hrefWith({ compare: compare ? null : '1' })) }, 'Compare with the period before');
}

function rangeMenu(state) {
  const { preset, range, zone } = state;
  const shut = (event) => close(event.currentTarget.closest('details'), true);
  const presets = PRESETS.map(({ key, label }) => h('li', null, h('button', {
    type: 'button', id: `range-${key}`, 'aria-pressed': String(key === preset),
    onclick: (event) => {
      shut(event);
      go(hrefWith({ range: key, from: null, to: null, bucket: null }));
    },
  }, label)));
  return menu({ id: 'range', label: `Time range: ${rangeText(state)}`, summary: [icon('clock'), rangeText(state)] },
    h('ul', { class: 'options' }, presets),
    h('form', { class: 'custom', 'data-keep-open': true, onsubmit: (event) => applyCustom(event, zone) },
      field('From', h('input', { type: 'datetime-local', id: 'range-from', name: 'from', required: true,
        value: toInput(range.from, zone) })),
      field('To', h('input', { type: 'datetime-local', id: 'range-to', name: 'to', required: true, value: toInput(range.to, zone) })),
      h('p', { class: 'form-error', id: 'range-error', role: 'alert' }),
      h('button', { type: 'submit', class: 'primary', id: 'range-apply' }, 'Apply')),
    field('Time zone', h('select', { id: 'zone', value: zone,
      onchange: (event) => go(hrefWith({ tz: event.currentTarget.value === localZone() ? null : event.currentTarget.value })) },
      [...new Set([localZone(), 'UTC', zone])].map((name) => h('option', { value: name }, name === localZone() ? `${name} (this browser)` : name)))),
    h('p', { class: 'hint' }, `${moment(range.from, zone)} to ${moment(range.to, zone)}, ${zone}`));
}

function applyCustom(event, zone) {
  event.preventDefault();
  const form = event.currentTarget;
  const [from, to] = ['from', 'to'].map((name) => fromInput(form.elements[name].value, zone));
  const error = form.querySelector('.form-error');
  if (from === null || to === null || from >= to) {
    error.textContent = from === null || to === null ? 'Give both times.' : '“To” must be later than “From”.';
    return;
  }
  error.textContent = '';
  close(form.closest('details'), true);
  go(hrefWith({ range: null, from: iso(from), to: iso(to), bucket: null }));
}

function field(label, input) {
  return h('label', { class: 'field' }, h('span', null, label), input);
}

function valuesOf(name, dimensions) {
  if (name === 'class') return CLASSES.map(({ key }) => key);
  return dimensions?.[PLURAL[name]] ?? [];
}

function filterMenu(state, dimensions, names) {
  const set = (name, value, on) => {
    const held = state.params.getAll(name).filter((item) => item !== value);
    go(hrefWith({ [name]: on ? [...held, value] : held }));
  };
  const groups = names.map((name) => {
    const values = valuesOf(name, dimensions);
    const held = state.params.getAll(name);
    const shown = [...held, ...values.filter((value) => !held.includes(value))].slice(0, MOST_SHOWN);
    return h('details', { class: 'filter-group', id: `filter-${name}`, open: held.length > 0 },
      h('summary', null, NAMES[name], h('span', { class: 'amount' }, held.length ? `${held.length} of ${values.length}` : String(values.length))),
      values.length > 12 ? h('input', { type: 'search', id: `filter-${name}-search`,
        'aria-label': `Find a ${NAMES[name]}`, placeholder: 'Find…', value: searched[name] ?? '',
          oninput: (event) => narrow(event, name) }) : null,
      h('ul', { class: 'checks' }, shown.map((value, index) => h('li', { hidden: !matches(name, value) }, h('label', null,
        h('input', { type: 'checkbox', id: `filter-${name}-${index}-${value}`, checked: held.includes(value),
          onchange: (event) => set(name, value, event.currentTarget.checked) }),
        name === 'class' ? classOf(value)?.label ?? value : value)))),
      values.length > MOST_SHOWN ? h('p', { class: 'hint' }, `The first ${MOST_SHOWN} of ${values.length}; add ?${name}=… to the address for others.`) : null,
      values.length === 0 ? h('p', { class: 'hint' }, 'None in this range.') : null);
  });
  return menu({ id: 'filters', label: 'Filters', summary: [icon('filter'), 'Filter'] }, groups);
}

function matches(name, value) {
  return value.toLowerCase().includes((searched[name] ?? '').toLowerCase());
}

function narrow(event, name) {
  searched[name] = event.currentTarget.value;
  event.currentTarget.parentElement.querySelectorAll('li').forEach((item) => {
    item.hidden = !matches(name, item.textContent);
  });
}

function chips({ filters, params }) {
  if (filters.length === 0) return null;
  const items = filters.flatMap(({ name, values }) => values.map((value) => h('li', null, h('button', {
    type: 'button', class: 'chip', id: `chip-${name}-${value}`,
    onclick: () => {
      go(hrefWith({ [name]: params.getAll(name).filter((item) => item !== value) }));
      document.getElementById('filters-button')?.focus();
    },
  }, h('span', { class: 'chip-name' }, NAMES[name]), name === 'class' ? classOf(value)?.label ?? value : value,
  h('span', { 'aria-hidden': 'true' }, ' ×'), srOnly(' – remove this filter')))));
  const none = Object.fromEntries(filters.map(({ name }) => [name, null]));
  return h('ul', { class: 'chips', 'aria-label': 'Filters in use' }, items,
    items.length > 1 ? h('li', null, h('a', { id: 'chips-clear', href: hrefWith(none) }, 'Clear all')) : null);
}

const PATHS = {
  clock: 'M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13zM8 4.5V8l2.5 1.5',
  filter: 'M2 4h12M4.5 8h7M7 12h2',
  sun: 'M8 5a3 3 0 1 0 0 6a3 3 0 0 0 0-6zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1',
  moon: 'M13 9.5A5.5 5.5 0 0 1 6.5 3a5.5 5.5 0 1 0 6.5 6.5z',
  key: 'M10.5 2a3.5 3.5 0 1 0 0 7a3.5 3.5 0 0 0 0-7zM8 8l-5.5 5.5M4.5 11.5L6 13',
  pause: 'M5.5 3v10M10.5 3v10',
  play: 'M5 3l8 5l-8 5z',
};

/** A line drawing of 16 by 16. */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  Object.entries({ class: 'icon', viewBox: '0 0 16 16', width: 16, height: 16, 'aria-hidden': 'true', focusable: 'false' })
    .forEach(([key, value]) => svg.setAttribute(key, value));
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}
