/**
 * The identity as a bar: attributed + unmetered + warm + cold + unobserved (+ what a filter leaves out) = all money of these
 * GPUs. It always fills: widths are shares of BigInt sums, labels are shares that add up to 100.0 %.
 */

import { h } from '../core/dom.js';
import { ledgerMoney, moneyLike, nusd, permille } from '../core/format.js';
import { CLASSES, classLabel, classMoney, swatch } from './classes.js';

const LEFT_OUT = { key: 'left_out', label: 'Left out by the filter', hint: 'Money of these GPUs that the filters above hide.' };

/** Parts of the whole; `leftOut` is null where there is no filter (or the key may not know). */
export function identityParts(moneyRow, leftOut) {
  const parts = CLASSES.map((item) => ({ ...item, value: classMoney(moneyRow, item.key) }));
  const hidden = nusd(leftOut) ?? 0n;
  if (hidden > 0n) parts.push({ ...LEFT_OUT, value: hidden });
  const shares = permille(parts.map(({ value }) => value));
  return parts.map((part, index) => ({ ...part, permille: shares[index] }));
}

function share(part) {
  return part.value > 0n && part.permille === 0 ? '<0.1\u00a0%' : `${(part.permille / 10).toFixed(1)}\u00a0%`;
}

/** The bar alone. `small` is the version of a table row. */
export function identityBar(parts, { small = false } = {}) {
  const total = parts.reduce((sum, part) => sum + part.value, 0n);
  const visible = parts.filter(({ value }) => value > 0n);
  const label = visible.map((part) => `${part.label} ${share(part)}`).join(', ');
  return h('div', { class: small ? 'identity small' : 'identity', role: 'img', 'aria-label': label || 'No money',
    title: small ? label : null },
    visible.map((part) => h('span', {
      class: `segment fill-${part.key}`,
      vars: { '--share': String(Number((part.value * 1_000_000n) / total)) },
    }, !small && part.permille >= 80 ? h('span', { class: part.label.length > 12 ? 'segment-label long' : 'segment-label' }, `${part.label} ${share(part)}`) : null)));
}

/** Bar, legend as a table, and the exact sums for those who check. */
export function identityFigure(parts, total) {
  const sum = parts.reduce((all, part) => all + part.value, 0n);
  const shown = moneyLike([total]);
  const rows = parts.map((part) => h('tr', null,
    h('th', { scope: 'row' }, part.key === 'left_out' ? h('span', { class: 'class-label' }, swatch('left_out'), part.label) : classLabel(part.key),
      h('span', { class: 'hint' }, part.hint)),
    h('td', { class: 'number' }, shown(part.value)),
    h('td', { class: 'number' }, share(part))));
  const exact = parts.map((part) => h('tr', null, h('th', { scope: 'row' }, part.label),
    h('td', { class: 'number exact' }, ledgerMoney(part.value))));
  return h('div', { class: 'identity-figure' },
    identityBar(parts),
    h('table', { class: 'plain identity-table' },
      h('caption', { class: 'sr-only' }, 'Money by class'),
      h('thead', { class: 'sr-only' }, h('tr', null, ['Class', 'Money', 'Share'].map((text) => h('th', { scope: 'col' }, text)))),
      h('tbody', null, rows),
      h('tfoot', null, h('tr', null, h('th', { scope: 'row' }, 'All money of these GPUs'), h('td', { class: 'number' }, shown(total)),
        h('td', { class: 'number' }, '100.0\u00a0%')))),
    h('details', { id: 'identity-exact', class: 'more' },
      h('summary', null, 'To the nano-dollar, as the ledger counts'),
      h('table', { class: 'plain exact-table' },
        h('caption', { class: 'sr-only' }, 'Money by class, exact'),
        h('tbody', null, exact),
        h('tfoot', null,
          h('tr', null, h('th', { scope: 'row' }, 'Sum of the classes'), h('td', { class: 'number exact' }, ledgerMoney(sum))),
          h('tr', null, h('th', { scope: 'row' }, 'Price × owned time'), h('td', { class: 'number exact' }, ledgerMoney(total))),
          h('tr', null, h('th', { scope: 'row' }, 'Difference'), h('td', { class: 'number exact' }, ledgerMoney(sum - nusd(total))))))),
    sum === nusd(total) ? null : h('p', { class: 'notice bad', role: 'alert' }, 'These sums differ: the ledger and this page disagree. ',
      'Run ', h('code', null, 'gpu-tokens audit'), ' and report it.'));
}
