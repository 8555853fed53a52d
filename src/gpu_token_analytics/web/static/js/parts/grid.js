/**
 * The grid of GPUs: cards with figures for a few, tiles with a letter for hundreds. What a tile shows it shows twice: by
 * colour, and by how high it is filled. One stop for the Tab key; arrows move inside.
 */

import { h } from '../core/dom.js';
import { integer, percent, rate, unit } from '../core/format.js';
import { classLabel, classOf, CLASSES } from './classes.js';
import { strip, stripLabel } from './strip.js';

export const COLORS = [
  { key: 'class', label: 'Class now' },
  { key: 'utilization', label: 'Utilisation', level: (gpu) => gpu.utilization },
  { key: 'memory', label: 'Memory', level: (gpu) => (gpu.mem_used_mb === null || !gpu.mem_total_mb ? null : gpu.mem_used_mb / gpu.mem_total_mb) },
  { key: 'idle', label: 'Idle today', level: (gpu) => gpu.idle_share_today },
];
const SMALL_FROM = 129;
const MEDIUM_FROM = 25;
let roving = null; // the GPU that holds the grid's tab stop

/** Cards by host, in the order given. */
export function byHost(gpus) {
  const hosts = new Map();
  for (const gpu of gpus) {
    if (!hosts.has(gpu.host)) hosts.set(gpu.host, []);
    hosts.get(gpu.host).push(gpu);
  }
  return hosts;
}

/** The class of the newest minute that has a cell; null: none in the last hour. */
export function classNow(gpu) {
  const newest = gpu.newest_minutes.filter((key) => key !== null);
  return newest.length ? newest[newest.length - 1] : null;
}

/** What the colours mean, with how many GPUs have each. */
export function gridLegend(gpus, color) {
  if (color !== 'class') {
    return h('div', { class: 'legend-line' },
      h('span', { class: 'ramp', 'aria-hidden': 'true' }, [0, 1, 2, 3, 4].map((step) => h('span', { class: `heat-${step}` }))),
      h('span', { class: 'hint' }, '0 % to 100 %; the higher the tile is filled, the more. Hatched: not known.'));
  }
  const counts = new Map();
  gpus.forEach((gpu) => counts.set(classNow(gpu), (counts.get(classNow(gpu)) ?? 0) + 1));
  return h('div', { class: 'legend-line' }, CLASSES.map(({ key, short }) => h('span', { class: 'legend-count' }, classLabel(key),
    h('span', { class: 'letter', 'aria-hidden': 'true' }, short), h('b', null, String(counts.get(key) ?? 0)))),
  counts.get(null) ? h('span', { class: 'legend-count' }, 'No cell', h('b', null, String(counts.get(null)))) : null);
}

/** `open(gpu id)` runs when one is chosen. */
export function gpuGrid(gpus, { color, shown, open }) {
  const size = gpus.length >= SMALL_FROM ? 'small' : gpus.length >= MEDIUM_FROM ? 'medium' : 'large';
  const stop = gpus.some(({ gpu }) => gpu === (roving ?? shown)) ? roving ?? shown : gpus[0]?.gpu;
  return h('div', { class: `gpu-grid ${size}`, role: 'group', 'aria-label': 'GPUs; arrow keys move between them', onkeydown: moveFocus },
    [...byHost(gpus)].map(([host, cards]) => h('section', { class: 'gpu-host', 'aria-label': host ?? 'Host unknown' },
      h('h3', { title: host }, host ?? 'Host unknown'),
      h('div', { class: 'gpu-tiles' }, cards.map((gpu) => tileOf(gpu, { color, size, stop, shown, open }))))));
}

function tileOf(gpu, { color, size, stop, shown, open }) {
  const now = classNow(gpu);
  const measure = COLORS.find(({ key }) => key === color).level?.(gpu);
  const look = color === 'class' ? { fill: now ? `fill-${now}` : 'fill-none', level: now ? classOf(now).level : 1 }
    : { fill: measure === null ? 'fill-none' : `heat-${Math.min(4, Math.floor(measure * 5))}`, level: measure ?? 1 };
  const value = color === 'class' ? (now ? classOf(now).short : '–') : measure === null ? '–' : String(Math.round(measure * 100));
  const words = [`GPU ${gpu.gpu_index ?? gpu.gpu}`, now ? classOf(now).label : 'no cell in the last hour', measure !== null && measure !== undefined ? `${COLORS.find(({ key }) => key === color).label} ${percent(measure)}` : null,
    gpu.models.join(', ') || null, gpu.state === 'live' ? null : gpu.state].filter(Boolean).join(', ');
  return h('button', {
    type: 'button', id: `gpu-${gpu.gpu}`, class: `gpu-tile ${gpu.state}`, tabindex: gpu.gpu === stop ? '0' : '-1',
      title: `${gpu.host ?? ''} ${words}`, 'aria-label': words,
    'aria-pressed': String(gpu.gpu === shown), onclick: () => open(gpu.gpu), onfocus: (event) => {
      roving = gpu.gpu;
      event.currentTarget.closest('.gpu-grid').querySelectorAll('.gpu-tile[tabindex="0"]').forEach((tile) => tile.setAttribute('tabindex', '-1'));
      event.currentTarget.setAttribute('tabindex', '0');
    },
  }, h('span', { class: `gpu-level ${look.fill}`, vars: { '--level': String(look.level) }, 'aria-hidden': 'true' }),
  size === 'small' && value === 'A' ? null : h('span', { class: 'gpu-value', 'aria-hidden': 'true' }, value), // the common case stays calm
  size === 'large' ? largeFacts(gpu) : null);
}

function largeFacts(gpu) {
  const meter = (label, share, text) => h('span', { class: 'meter' }, h('span', { class: 'meter-name' }, label),
    h('span', { class: 'meter-track' }, share === null ? null : h('span', { class: 'meter-fill',
      vars: { '--length': String(Math.min(100, share * 100)) } })),
    h('span', { class: 'meter-value' }, text));
  const memory = gpu.mem_used_mb === null || !gpu.mem_total_mb ? null : gpu.mem_used_mb / gpu.mem_total_mb;
  return h('span', { class: 'gpu-facts', 'aria-hidden': 'true' },
    h('span', { class: 'gpu-name' }, h('b', null, gpu.gpu_index ?? '?'), ` ${gpu.name ?? 'Type unknown'}`),
    h('span', { class: 'gpu-models' }, gpu.models.join(', ') || 'no model lately'),
    meter('Util', gpu.utilization, gpu.utilization === null ? '–' : percent(gpu.utilization)),
    meter('Mem', memory, memory === null ? '–' : percent(memory)),
    h('span', { class: 'gpu-foot' }, gpu.power_w === null ? '– W' : `${integer(gpu.power_w)} W`, ' · ', gpu.usd_per_hour === null ? `– ${unit('h')}` : `${rate(gpu.usd_per_hour)}/h`,
      ' · ', gpu.idle_share_today === null ? '–' : percent(gpu.idle_share_today), ' idle today'),
    strip(gpu.newest_minutes, stripLabel(gpu.newest_minutes)));
}

function moveFocus(event) {
  const tiles = [...event.currentTarget.querySelectorAll('.gpu-tile')];
  const at = tiles.indexOf(document.activeElement);
  if (at < 0) return;
  const next = { ArrowRight: () => tiles[at + 1], ArrowLeft: () => tiles[at - 1], Home: () => tiles[0], End: () => tiles[tiles.length - 1],
    ArrowDown: () => nearest(tiles, at, 1), ArrowUp: () => nearest(tiles, at, -1) }[event.key];
  if (!next) return;
  event.preventDefault();
  next()?.focus();
}

/** The tile closest to straight below (1) or above (-1). */
function nearest(tiles, at, direction) {
  const from = tiles[at].getBoundingClientRect();
  let best = null;
  for (const tile of tiles) {
    const box = tile.getBoundingClientRect();
    const away = (box.top - from.top) * direction;
    if (away < from.height / 2) continue;
    const cost = away * 4 + Math.abs(box.left - from.left);
    if (!best || cost < best.cost) best = { tile, cost };
  }
  return best?.tile;
}
