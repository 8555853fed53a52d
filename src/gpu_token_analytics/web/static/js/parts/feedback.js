/** What a page says when there is nothing to show: why, and what to do next. */

import { h, marked } from '../core/dom.js';
import { go, hrefWith } from '../core/state.js';

const NEXT_STEPS = {
  network: 'Check that the api process runs and that this machine reaches it. The page tries again by itself.',
  store_unavailable: 'The api process runs, MongoDB does not answer it: check MONGODB_URI and the database. The page tries again by itself.',
  query_timeout: 'Choose a shorter range or fewer groups; whole hours read fastest.',
  rate_limited: 'This key asked too often. Wait a few seconds; close other tabs that show the dashboard.',
  too_many_streams: 'Close other tabs with the dashboard.',
  forbidden: 'Ask your administrator for a key with the right scope: gpu-tokens keys create.',
  unauthenticated: 'Give an API key with scope read.',
  not_found: 'Check the id. Raw events are kept for RAW_RETENTION_DAYS, the ledger longer.',
};

/** An error in place of content. */
export function errorPanel(problem, { retry } = {}) {
  const next = NEXT_STEPS[problem.code] ?? 'Try again; if it stays, the log of the api process has the request under the id below.';
  return h('div', { class: 'panel error', role: 'alert' },
    h('h2', null, problem.title || 'Something went wrong'),
    h('p', null, marked(problem.detail || problem.message)),
    problem.nearest ? nearest(problem.nearest) : h('p', { class: 'next' }, next),
    h('p', { class: 'actions' }, retry ? h('button', { type: 'button', class: 'primary', id: 'retry',
      onclick: retry }, 'Try again') : null),
    problem.instance ? h('p', { class: 'hint' }, 'Request ', h('code', null, problem.instance)) : null);
}

function nearest({ from, to, bucket }) {
  return h('p', { class: 'next' }, 'The nearest accepted one: ',
    h('button', { type: 'button', id: 'nearest', onclick: () => go(hrefWith({ range: null, from, to, bucket })) },
      `${from} to ${to}, bucket ${bucket}`));
}

/** A refresh failed, but older figures stand. */
export function staleBanner(problem, since, retry) {
  return h('p', { class: 'notice warn', id: 'stale' }, `Could not refresh: ${problem.detail || problem.message} `,
    `Figures are those of ${since}. `, h('button', { type: 'button', class: 'link', id: 'stale-retry', onclick: retry }, 'Try again'));
}

/** No data. `steps` are nodes or strings. */
export function emptyPanel(title, ...steps) {
  return h('div', { class: 'panel empty' }, h('h2', null, title), h('ul', null, steps.filter(Boolean).map((step) => h('li', null, step))));
}

/** No money in the range: widen it, remove filters, or start sending. */
export function noCells(state) {
  const widen = h('a', { href: hrefWith({ range: '7d', from: null, to: null }) }, 'Look at the last 7 days');
  const clear = Object.fromEntries(state.filters.map(({ name }) => [name, null]));
  return emptyPanel('Nothing in this range',
    state.preset === '7d' || state.preset === '30d' ? null : widen,
    state.filters.length ? h('a', { href: hrefWith(clear) }, 'Remove all filters') : null,
    ['Send GPU samples: ', h('code', null, 'gpu-tokens agent'), ' on each GPU host. Cells appear within a minute.'],
    ['No GPU at hand? ', h('code', null, 'gpu-tokens simulate'), ' sends a fleet of made-up ones.']);
}

/** Grey shapes while the first answer is on its way. */
export function skeleton() {
  return h('div', { class: 'skeleton', 'aria-hidden': 'true' }, h('div', { class: 'bone tall' }), h('div', { class: 'bone' }),
    h('div', { class: 'bone tall' }));
}

/** A card with a heading. */
export function card(title, { id, aside, hint, wide = true } = {}, ...children) {
  return h('section', { class: wide ? 'card wide' : 'card', id, 'aria-labelledby': `${id}-title` },
    h('div', { class: 'card-head' }, h('h2', { id: `${id}-title` }, title), aside ? h('div', { class: 'aside' }, aside) : null),
    hint ? h('p', { class: 'hint' }, hint) : null, children);
}

/** Figures of one time, which stands above them in words. */
export function tiles(over, { id, look = '' } = {}, ...figures) {
  return h('section', { id, class: 'tiles-of', 'aria-label': over },
    h('p', { class: 'hint', id: `${id}-over` }, over), h('dl', { class: `tiles ${look}`.trim() }, figures));
}

/** One figure with its name. */
export function tile(label, value, { sub, spark, id } = {}) {
  return h('div', { class: 'tile', id }, h('dt', null, label), h('dd', null, h('span', { class: 'figure' }, value),
    sub ? h('span', { class: 'sub' }, sub) : null, spark ?? null));
}

/** Links that look like a switch: one parameter of the address. The first option is the default. */
export function choice({ id, label, param, options, params }) {
  const current = options.some(({ key }) => key === params.get(param)) ? params.get(param) : options[0].key;
  return h('div', { class: 'choice', role: 'group', 'aria-label': label },
    options.map(({ key, label: text }, index) => h('button', {
      type: 'button', id: `${id}-${key}`, 'aria-pressed': String(key === current),
      onclick: () => go(hrefWith({ [param]: index === 0 ? null : key })),
    }, text)));
}

/** The value `choice` shows as pressed. */
export function chosen(param, options, params) {
  return options.some(({ key }) => key === params.get(param)) ? params.get(param) : options[0].key;
}
