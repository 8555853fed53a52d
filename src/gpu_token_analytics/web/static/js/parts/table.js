/** A table that sorts, scrolls sideways inside its own region, and says below what its dashes mean. */

import { h, srOnly } from '../core/dom.js';
import { go, hrefWith } from '../core/state.js';

const FIRST_ROWS = 100;

/**
 * columns: {key, label, number, value(row), cell(row), total, hint}. `value` makes a column sortable (unknown: null, sorted
 * last). `sort`: {param, params, initial: 'key.desc'} keeps the order in the address.
 */
export function table({ id, caption, columns, rows, sort, totals, rowClass, limit = FIRST_ROWS }) {
  const order = sort ? sortOrder(sort, columns) : null;
  const sorted = order ? sortRows(rows, columns.find(({ key }) => key === order.key), order.down) : rows;
  const all = sort?.params.get('rows') === 'all' || rows.length <= limit;
  const shown = all ? sorted : sorted.slice(0, limit);
  const body = h('tbody', null, shown.map((row, index) => h('tr', { class: rowClass?.(row) },
    columns.map((column, position) => cell(column, row, position, index)))));
  const found = h('table', { class: 'data' },
    h('caption', { class: 'sr-only' }, caption),
    h('thead', null, h('tr', null, columns.map((column) => heading(id, column, order, sort)))),
    body,
    totals ? h('tfoot', null, h('tr', null, columns.map((column, position) => h(position === 0 ? 'th' : 'td', {
      scope: position === 0 ? 'row' : null, class: column.number ? 'number' : null,
    }, column.total ?? '')))) : null);
  return h('div', { class: 'table-part' },
    h('div', { class: 'table-scroll', id: `${id}-scroll`, role: 'group', tabindex: '0', 'aria-label': caption }, found),
    all ? null : h('p', { class: 'more-rows' }, `${shown.length} of ${rows.length} rows. `,
      h('a', { id: `${id}-all`, href: hrefWith({ rows: 'all' }) }, 'Show all')),
    reasons(found));
}

function cell(column, row, position) {
  const content = column.cell(row);
  return position === 0
    ? h('th', { scope: 'row', class: column.number ? 'number' : null }, h('span', { class: 'row-name' }, content))
    : h('td', { class: [column.number && 'number', column.class].filter(Boolean).join(' ') || null }, content);
}

function sortOrder({ param = 'sort', params, initial }, columns) {
  const [key, direction] = (params.get(param) ?? initial).split('.');
  const column = columns.find((item) => item.key === key && item.value);
  const [startKey, startDirection] = initial.split('.');
  return column ? { key, down: direction !== 'asc' } : { key: startKey, down: startDirection !== 'asc' };
}

function sortRows(rows, column, down) {
  const sign = down ? -1 : 1;
  return rows.map((row) => ({ row, value: column.value(row) })).sort((a, b) => {
    const missing = Number(a.value === null || a.value === undefined) - Number(b.value === null || b.value === undefined);
    if (missing !== 0 || a.value === null || a.value === undefined) return missing;
    if (typeof a.value === 'string') return sign * a.value.localeCompare(b.value, 'en', { numeric: true });
    return a.value < b.value ? -sign : a.value > b.value ? sign : 0;
  }).map(({ row }) => row);
}

function heading(id, column, order, sort) {
  const text = [column.label, column.unit ? h('span', { class: 'unit' }, ` ${column.unit}`) : null];
  const props = { scope: 'col', class: column.number ? 'number' : null, title: column.hint };
  if (!sort || !column.value) return h('th', props, text);
  const current = order.key === column.key;
  const next = current && order.down ? 'asc' : 'desc';
  const arrow = current ? (order.down ? '▾' : '▴') : '';
  return h('th', { ...props, 'aria-sort': current ? (order.down ? 'descending' : 'ascending') : null },
    h('button', { type: 'button', class: 'sort', id: `${id}-sort-${column.key}`,
      onclick: () => go(hrefWith({ [sort.param ?? 'sort']: `${column.key}.${next}` }), { replace: true }) },
    text, h('span', { class: 'arrow', 'aria-hidden': 'true' }, arrow), srOnly(current ? '' : ', sort')));
}

function reasons(found) {
  const texts = [...new Set([...found.querySelectorAll('[data-reason]')].map((node) => node.dataset.reason))];
  return texts.length === 0 ? null : h('p', { class: 'reasons', 'aria-hidden': 'true' }, '– means not known: ', texts.join('; '), '.');
}
