/** GPUs: every card now, as a grid that reads at 8 and at 800, and one card's timeline. */

import { get, getAll } from '../core/api.js';
import { bucketOf, costs, selection } from '../core/costs.js';
import { h } from '../core/dom.js';
import { integer, known, money, percent, quantity, rate, unit } from '../core/format.js';
import { go, hrefWith } from '../core/state.js';
import { classLabel, CLASSES, idleMoney } from '../parts/classes.js';
import { card, choice, chosen, emptyPanel, tile, tiles } from '../parts/feedback.js';
import { byHost, COLORS, gpuGrid, gridLegend } from '../parts/grid.js';
import { identityBar, identityParts } from '../parts/identity.js';
import { stateBadge } from '../parts/shared.js';
import { strip, stripLabel } from '../parts/strip.js';
import { table } from '../parts/table.js';
import { gpuDetail } from './gpu.js';

const VIEWS = [{ key: 'grid', label: 'Grid' }, { key: 'timelines', label: 'Timelines' }, { key: 'table', label: 'Table' }];
const LISTED_REQUESTS = 20;
const DAY_MS = 86_400_000;
const LINES_AT_FIRST = 160;

export const title = 'GPUs';
export const filters = ['gpu', 'host', 'gpu_name', 'model'];

export async function load({ state, signal }) {
  const shown = state.params.get('show');
  const places = Object.fromEntries(state.filters.filter(({ name }) => name === 'gpu' || name === 'host').map(({ name, values }) => [name, values]));
  const [list, detail] = await Promise.all([
    getAll('gpus', { time_zone: state.zone, limit: 1000, ...places }, 'gpus', { signal, most: 20_000 }),
    shown ? loadDetail(state, shown, signal) : null,
  ]);
  return { list, detail };
}

async function loadDetail(state, gpu, signal) {
  const bucket = bucketOf(state);
  const alone = { gpu: [gpu], model: null, tenant: null, host: null, gpu_name: null, class: null };
  const from = Math.max(state.range.from, state.range.to - DAY_MS); // requests are listed for a day at most
  const { from: start, to } = selection(state, { from, to: state.range.to });
  const [timed, requests] = await Promise.all([
    costs(state, { bucket, extra: alone, signal }),
    get('requests', { gpu, from: start, to, limit: LISTED_REQUESTS }, { signal }),
  ]);
  return { gpu, bucket, timed, requests };
}

export function view(context, { list, detail }) {
  const { state } = context;
  if (list.total === 0) {
    return emptyPanel('No GPU is known yet',
      ['Run ', h('code', null, 'gpu-tokens agent'), ' on each GPU host; cards appear with their first sample.'],
      ['No GPU at hand? ', h('code', null, 'gpu-tokens simulate'), ' sends a fleet of made-up ones.'],
      state.filters.length ? h('a', { href: hrefWith(Object.fromEntries(state.filters.map(({ name }) => [name, null]))) }, 'Remove all filters') : null);
  }
  const gpus = list.gpus.filter((gpu) => passes(gpu, state.filters));
  const chosenGpu = detail ? list.gpus.find(({ gpu }) => gpu === detail.gpu) : null;
  const current = chosen('view', VIEWS, state.params);
  const color = chosen('color', COLORS, state.params);
  return [
    summary(gpus, state),
    detail ? gpuDetail(context, detail, chosenGpu) : null,
    card(`${integer(gpus.length)} GPUs${gpus.length === list.total ? '' : ` of ${integer(list.total)}`}`, {
      id: 'fleet',
      aside: [choice({ id: 'view', label: 'View', param: 'view', options: VIEWS, params: state.params }),
        current === 'grid' ? choice({ id: 'color', label: 'Shown on each GPU', param: 'color', options: COLORS, params: state.params }) : null],
    }, gpus.length === 0 ? h('p', { class: 'hint' }, 'No GPU passes the filters.') : null,
    current === 'grid' ? [gridLegend(gpus, color), gpuGrid(gpus, { color, shown: detail?.gpu, open: openGpu })] : null,
    current === 'timelines' ? timelines(gpus, state) : null,
    current === 'table' ? gpuTable(gpus, state) : null),
  ];
}

function openGpu(gpu) {
  go(hrefWith({ show: gpu }));
}

function passes(gpu, filters) {
  return filters.every(({ name, values }) => {
    if (name === 'model') return gpu.models.some((model) => values.includes(model));
    const value = { gpu: gpu.gpu, host: gpu.host, gpu_name: gpu.name }[name];
    return value === undefined || values.includes(value);
  });
}

function summary(gpus, state) {
  const count = (state) => gpus.filter((gpu) => gpu.state === state).length;
  const seen = gpus.filter(({ utilization }) => utilization !== null);
  const today = CLASSES.map(({ key }) => gpus.reduce((sum, gpu) => sum + BigInt(gpu.today?.[`${key}_nusd`] ?? 0), 0n));
  const total = today.reduce((sum, value) => sum + value, 0n);
  const priced = gpus.filter((gpu) => gpu.state !== 'silent' && gpu.usd_per_hour !== null);
  const idleToday = gpus.reduce((sum, gpu) => sum + (gpu.today ? idleMoney(gpu.today) : 0n), 0n);
  const idle = total > 0n ? Number((idleToday * 1_000_000n) / total) / 1e6 : null;
  const troubled = [['stale', 'without fresh samples'], ['silent', 'silent']].filter(([state]) => count(state) > 0).map(([state, text]) => `${integer(count(state))} ${text}`);
  return tiles(`Now, and today since midnight (${state.zone})`, { id: 'gpus-now' },
    tile('Live', [integer(count('live')), h('span', { class: 'per' }, ` of ${integer(gpus.length)}`)],
      { id: 'gpus-live', sub: troubled.join(', ') || 'all report' }),
    tile('Price', known(priced.length ? priced.reduce((sum, gpu) => sum + gpu.usd_per_hour, 0) : null, (value) => [rate(value, 4),
      h('span', { class: 'per' }, ' /h')], 'no computed cell in the last hour'),
      { id: 'gpus-price', sub: priced.length < gpus.length ? `of ${integer(priced.length)} GPUs with a known price` : 'all GPUs together' }),
    tile('Utilisation', known(seen.length ? seen.reduce((sum, gpu) => sum + gpu.utilization, 0) / seen.length : null, percent, 'no GPU reports it'),
      { id: 'gpus-utilization', sub: `mean of ${integer(seen.length)} GPUs that report it` }),
    tile('Idle today', known(idle, percent, 'no cell today'),
      { id: 'gpus-idle', sub: total > 0n ? `${money(idleToday)} of ${money(total)}` : null }));
}

function timelines(gpus, state) {
  const all = state.params.get('rows') === 'all' || gpus.length <= LINES_AT_FIRST;
  const hosts = byHost(all ? gpus : gpus.slice(0, LINES_AT_FIRST));
  return h('div', { class: 'timelines' },
    h('div', { class: 'legend-line' }, CLASSES.map(({ key }) => classLabel(key)),
      h('span', { class: 'hint' }, 'The last 60 minutes, oldest left; a gap is a minute without a cell.')),
    all ? null : h('p', { class: 'more-rows' }, `The first ${LINES_AT_FIRST} of ${integer(gpus.length)} GPUs; filter by host, or `, h('a',
      { id: 'lines-all', href: hrefWith({ rows: 'all' }) }, 'show all'), '.'),
    [...hosts].map(([host, cards]) => h('section', { class: 'host-lines', 'aria-label': host ?? 'Host unknown' },
      h('h3', null, host ?? 'Host unknown'),
      h('ul', null, cards.map((gpu) => h('li', null,
        h('button', { type: 'button', class: 'link', id: `line-${gpu.gpu}`, onclick: () => openGpu(gpu.gpu),
          title: gpu.gpu }, `GPU ${gpu.gpu_index ?? gpu.gpu}`),
        strip(gpu.newest_minutes, stripLabel(gpu.newest_minutes)),
        h('span', { class: 'idle-share' }, known(gpu.idle_share_today, (value) => `${percent(value)} idle`, 'no cell today'))))))));
}

const STALE = 'no fresh sample';

function gpuTable(gpus, state) {
  const columns = [
    { key: 'gpu', label: 'GPU', value: (gpu) => `${gpu.host} ${gpu.gpu_index}`,
      cell: (gpu) => h('button', { type: 'button', class: 'link', id: `row-${gpu.gpu}`, title: gpu.gpu,
      onclick: () => openGpu(gpu.gpu) }, `${gpu.host ?? '?'} / ${gpu.gpu_index ?? gpu.gpu}`) },
    { key: 'name', label: 'Type', value: (gpu) => gpu.name,
      cell: (gpu) => known(gpu.name, (name) => [name, gpu.mig_profile ? ` · ${gpu.mig_profile}` : ''], 'no name in its samples') },
    { key: 'state', label: 'State', value: (gpu) => gpu.state, cell: (gpu) => stateBadge(gpu) },
    { key: 'utilization', label: 'Util.', number: true, value: (gpu) => gpu.utilization,
      cell: (gpu) => known(gpu.utilization, percent, 'not reported (MIG), or no sample') },
    { key: 'memory', label: 'Memory', number: true, value: (gpu) => gpu.mem_used_mb,
      cell: (gpu) => known(gpu.mem_used_mb, (used) => `${quantity(used / 1024, 'GiB')}`, STALE) },
    { key: 'power', label: 'Power', number: true, value: (gpu) => gpu.power_w,
      cell: (gpu) => known(gpu.power_w, (value) => quantity(value, 'W'), STALE) },
    { key: 'models', label: 'Models', value: (gpu) => gpu.models.join(),
      cell: (gpu) => gpu.models.join(', ') || h('span', { class: 'none' }, 'none lately') },
    { key: 'price', label: unit('h'), number: true, value: (gpu) => gpu.usd_per_hour,
      cell: (gpu) => known(gpu.usd_per_hour, rate, 'no computed cell in the last hour') },
    { key: 'today', label: 'Today', number: true, value: (gpu) => (gpu.today ? BigInt(gpu.today.total_nusd) : null),
      cell: (gpu) => known(gpu.today, ({ total_nusd: total }) => money(total), 'no cell today') },
    { key: 'idle', label: 'Idle today', number: true, value: (gpu) => gpu.idle_share_today,
      cell: (gpu) => known(gpu.idle_share_today, percent, 'no cell today') },
    { key: 'split', label: 'Today by class', class: 'bar-cell',
      cell: (gpu) => (gpu.today ? identityBar(identityParts(gpu.today, null), { small: true }) : '') },
  ];
  return table({ id: 'gpus', caption: 'GPUs now', columns, rows: gpus, sort: { params: state.params, initial: 'gpu.asc' }, limit: 200 });
}
