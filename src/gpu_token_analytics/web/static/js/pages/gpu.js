/** One GPU on the GPUs page: its state now, its timeline of classes over the range, and its newest requests. */

import { overTime, starts } from '../core/costs.js';
import { h } from '../core/dom.js';
import { axisMoney, integer, known, money, percent, quantity, rate, usdForScale } from '../core/format.js';
import { go, hrefWith } from '../core/state.js';
import { stackedColumns } from '../parts/charts.js';
import { CLASSES, classMoney } from '../parts/classes.js';
import { card } from '../parts/feedback.js';
import { identityBar, identityParts } from '../parts/identity.js';
import { priceRow, requestColumns, stateBadge } from '../parts/shared.js';
import { strip, stripLabel } from '../parts/strip.js';
import { table } from '../parts/table.js';
import { zoomer } from './overview.js';

const NO_SAMPLE = 'no fresh sample';

/** `gpu` is its state now; null when the id is not in the inventory (any more). */
export function gpuDetail({ state }, { gpu: id, bucket, timed, requests }, gpu) {
  const shut = () => {
    go(hrefWith({ show: null }));
    document.getElementById(`gpu-${id}`)?.focus();
  };
  return card(gpu ? `${gpu.host ?? 'Host unknown'} / GPU ${gpu.gpu_index ?? '?'}` : id, {
    id: 'gpu-detail', aside: h('button', { type: 'button', id: 'gpu-close', onclick: shut }, 'Close'),
  },
  gpu ? facts(gpu) : h('p', { class: 'hint' }, 'This GPU is not in the inventory.'),
  timeline(state, timed, bucket),
  requestList(state, requests));
}

function facts(gpu) {
  const fact = (name, value) => h('div', null, h('dt', null, name), h('dd', null, value));
  return h('div', { class: 'gpu-now' },
    h('dl', { class: 'facts' },
      fact('Id', h('code', null, gpu.gpu)),
      fact('Type', known(gpu.name, (name) => [name, gpu.mig_profile ? ` · MIG ${gpu.mig_profile} of ${gpu.parent_uuid}` : ''], 'no name in its samples')),
      fact('State', stateBadge(gpu)),
      fact('Models', gpu.models.join(', ') || 'none in its newest minutes'),
      fact('Utilisation', known(gpu.utilization, percent, 'not reported (MIG), or no sample')),
      fact('Memory', known(gpu.mem_used_mb, (used) => `${quantity(used / 1024, 'GiB')} of ${gpu.mem_total_mb === null ? '?' : quantity(gpu.mem_total_mb / 1024, 'GiB')}`, NO_SAMPLE)),
      fact('Power', known(gpu.power_w, (watts) => quantity(watts, 'W'), NO_SAMPLE)),
      fact('Temperature', known(gpu.temperature_c, (degrees) => `${integer(degrees)}\u00a0°C`, 'not in its samples')),
      fact('Price', known(gpu.usd_per_hour, (value) => [`${rate(value, 4)} /h, `, gpu.price_row ? priceRow(gpu.price_row) : null], 'no computed cell in the last hour'))),
    h('div', { class: 'gpu-strip' }, h('h3', null, 'Last 60 minutes'), strip(gpu.newest_minutes, stripLabel(gpu.newest_minutes)),
      h('h3', null, gpu.today ? `Today, ${money(gpu.today.total_nusd)}` : 'Today'),
      gpu.today ? identityBar(identityParts(gpu.today, null)) : h('p', { class: 'hint' }, 'No cell today.')));
}

function timeline(state, timed, bucket) {
  const at = starts(state, bucket);
  const series = CLASSES.map(({ key, label }) => {
    const values = overTime(timed.rows, at, (row) => classMoney(row.money, key));
    return { key, label, values, heights: values.map(usdForScale) };
  });
  return h('div', null, h('h3', null, 'Timeline of classes'),
    timed.rows.length === 0 ? h('p', { class: 'hint' }, 'No cell of this GPU in the range.')
      : stackedColumns({ id: 'gpu-timeline',
        title: 'Money of this GPU by class over time', starts: at, bucket, zone: state.zone, series, format: money,
        tickFormat: axisMoney, onZoom: zoomer(state) }));
}

function requestList(state, { requests }) {
  if (requests.length === 0) return h('div', null, h('h3', null, 'Newest requests'),
    h('p', { class: 'hint' }, 'No request ended on it in the last day of the range.'));
  const columns = requestColumns(state);
  return h('div', null,
    h('h3', null, 'Newest requests'), table({ id: 'gpu-requests', caption: 'Newest requests of this GPU', columns, rows: requests }));
}
