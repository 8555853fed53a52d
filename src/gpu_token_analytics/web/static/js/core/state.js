/**
 * What the page shows is its address: page, time range, zone, filters, grouping, selection. A link shows a colleague the
 * same thing, and back goes back.
 */

import { DEFAULT_PRESET, isZone, localZone, OVER, PRESETS, presetRange } from './time.js';

export const FILTERS = ['model', 'tenant', 'gpu', 'host', 'gpu_name', 'class'];
const SHARED = ['range', 'from', 'to', 'tz', 'compare', 'currency', ...FILTERS]; // what a link to another page carries along

const root = new URL('.', document.baseURI);

/** The page's name: `''` for the overview. */
export function pageOf(url) {
  return new URL(url).pathname.slice(root.pathname.length);
}

/** Everything the address says. Values that cannot be used fall back to the default. */
export function readState(now = Date.now()) {
  const params = new URLSearchParams(location.search);
  const zone = params.get('tz') && isZone(params.get('tz')) ? params.get('tz') : localZone();
  const from = Date.parse(params.get('from') ?? '');
  const to = Date.parse(params.get('to') ?? '');
  const custom = Number.isFinite(from) && Number.isFinite(to) && from < to;
  const preset = PRESETS.some(({ key }) => key === params.get('range')) ? params.get('range') : DEFAULT_PRESET;
  return {
    page: pageOf(location.href),
    params,
    zone,
    preset: custom ? null : preset,
    range: custom ? { from, to } : presetRange(preset, zone, now),
    moving: !custom && !OVER.includes(preset), // its end follows the clock
    compare: params.get('compare') === '1',
    filters: FILTERS.map((name) => ({ name, values: params.getAll(name) })).filter(({ values }) => values.length > 0),
  };
}

function write(params, changes) {
  for (const [name, value] of Object.entries(changes)) {
    params.delete(name);
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item !== null && item !== undefined && item !== '') params.append(name, item);
    }
  }
  return params;
}

/** The address of this page with some parameters changed (null removes, an array repeats). */
export function hrefWith(changes) {
  const params = write(new URLSearchParams(location.search), changes);
  return address(pageOf(location.href), params);
}

/** The address of another page, with the range and filters kept. */
export function hrefTo(page, changes = {}) {
  const kept = new URLSearchParams();
  for (const [name, value] of new URLSearchParams(location.search)) {
    if (SHARED.includes(name)) kept.append(name, value);
  }
  return address(page, write(kept, changes));
}

function address(page, params) {
  const query = params.toString();
  return new URL(`${page}${query ? `?${query}` : ''}`, root).href;
}

/** Go to an address without loading a document. */
export function go(href, { replace = false } = {}) {
  if (href === location.href) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', href);
  dispatchEvent(new Event('statechange'));
}

