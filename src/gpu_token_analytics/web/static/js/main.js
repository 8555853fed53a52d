/** The shell: header, toolbar, and the page the address names; loading, refreshing, and what happens when that fails. */

import { apiKey, get } from './core/api.js';
import { showIn } from './core/currency.js';
import { h, morph } from './core/dom.js';
import { rate } from './core/format.js';
import { CONNECTING, LIVE, LiveFeed, PAUSED, POLLING } from './core/live.js';
import { FILTERS, go, hrefTo, readState } from './core/state.js';
import { clock, iso } from './core/time.js';
import * as breakEven from './pages/breakeven.js';
import * as budgets from './pages/budgets.js';
import * as gpus from './pages/gpus.js';
import * as idle from './pages/idle.js';
import * as models from './pages/models.js';
import * as overview from './pages/overview.js';
import * as prices from './pages/prices.js';
import * as quality from './pages/quality.js';
import * as request from './pages/request.js';
import * as tenants from './pages/tenants.js';
import { askedRates, currencyMenu, currencyNote } from './parts/converted.js';
import { downloads } from './parts/download.js';
import { errorPanel, skeleton, staleBanner } from './parts/feedback.js';
import { askForKey } from './parts/keydialog.js';
import { icon, toolbar } from './parts/toolbar.js';

const PAGES = { '': overview, models, tenants, gpus, request, idle, budgets, 'break-even': breakEven, prices, quality };
const TENANT_PAGES = ['', 'models', 'tenants', 'request', 'budgets']; // what a tenant's key may see
const TENANT_FILTERS = ['model'];
const REFRESH_AT_MOST_EVERY_MS = 10_000;

const app = {
  me: null, live: null, feed: null, state: null, dimensions: null, rates: null,
  page: null, data: null, loadedAt: null, problem: null, loading: false, abort: null,
};
let shell = null;

function say(text) {
  document.getElementById('status').textContent = text;
}

// Header

const STATES = {
  [LIVE]: { text: 'Live', look: 'good' },
  [POLLING]: { text: 'Every 15 s', look: 'warn' },
  [PAUSED]: { text: 'Paused', look: '' },
  [CONNECTING]: { text: 'Connecting', look: '' },
};

function header() {
  const names = Object.keys(PAGES).filter((name) => !app.me?.tenant || TENANT_PAGES.includes(name));
  const paused = app.feed?.paused ?? false;
  const state = STATES[app.feed?.state ?? CONNECTING];
  const spend = app.live?.usd_per_hour;
  const dark = isDark();
  return h('header', { class: 'top', id: 'top' },
    h('a', { class: 'brand', href: hrefTo(''), 'aria-label': 'GPU Token Analytics, overview' },
      h('span', { class: 'brand-mark', 'aria-hidden': 'true' }), h('span', { class: 'brand-name' }, 'GPU Token Analytics')),
    h('nav', { 'aria-label': 'Pages', id: 'nav' }, h('ul', null, names.map((name) => h('li', null, h('a', {
      href: hrefTo(name), id: `nav-${name || 'overview'}`, 'aria-current': name === app.state.page ? 'page' : null }, PAGES[name].title))))),
    h('div', { class: 'tools' },
      h('button', { type: 'button', class: `live ${state.look}`, id: 'live', 'aria-pressed': String(!paused),
        title: paused ? 'Resume live figures' : 'Pause live figures', onclick: () => app.feed?.setPaused(!paused) },
        h('span', { class: 'dot', 'aria-hidden': 'true' }), h('span', { id: 'live-text' }, state.text),
        spend === null || spend === undefined ? null : h('span', { class: 'live-spend' }, `${rate(spend, 4)}/h`)),
      h('button', { type: 'button', class: 'icon-button', id: 'theme', 'aria-label': dark ? 'Use the light theme' : 'Use the dark theme',
        title: 'Light or dark', onclick: () => setTheme(dark ? 'light' : 'dark') }, icon(dark ? 'sun' : 'moon')),
      app.me?.anonymous && !apiKey() ? null : h('button', { type: 'button', class: 'icon-button', id: 'key', 'aria-label': 'API key',
        title: 'API key', onclick: () => askForKey('', restart) }, icon('key'))));
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem('theme', theme);
  } catch {
    // Storage is refused: the choice lasts until the page is reloaded.
  }
  paint();
}

// Content

function context() {
  return { state: app.state, me: app.me, live: app.live, dimensions: app.dimensions, rates: app.rates, signal: app.abort?.signal, refresh: () => refresh() };
}

function content() {
  const { page, data, problem } = app;
  if (problem && !data) return errorPanel(problem, { retry: () => refresh() });
  if (!data) return skeleton();
  const stale = problem ? staleBanner(problem, clock(app.loadedAt, app.state.zone), () => refresh()) : null;
  try {
    return [stale, page.view(context(), data)];
  } catch (error) {
    console.error(error);
    return errorPanel({ title: 'This page could not be drawn', detail: error.message, code: 'drawing' }, { retry: () => refresh() });
  }
}

function filterNames(page) {
  if (app.me?.tenant) return TENANT_FILTERS.filter((name) => (page.filters ?? FILTERS).includes(name));
  return page.filters ?? FILTERS;
}

function paint() {
  const { page, state } = app;
  const names = filterNames(page);
  const held = askedRates(state, app.rates, page.ranged !== false);
  showIn(held[held.length - 1] ?? null);
  const next = h('div', { id: 'app' }, header(),
    h('main', { id: 'main', tabindex: '-1', 'aria-busy': String(app.loading) },
      h('div', { class: 'page-head' }, h('h1', { id: 'title', tabindex: '-1' }, page.title),
        h('div', { class: 'head-tools' }, page.ranged === false ? null : toolbar(state, app.dimensions, names, page.compares), currencyMenu(state, app.rates), app.me ? downloads(state, app.me) : null)),
      currencyNote(state, app.rates, held),
      h('div', { id: 'content' }, content())),
    h('footer', { class: 'bottom' }, h('span', null, app.me ? `Version ${app.me.version}` : ''),
      h('span', null, app.loadedAt ? `Figures of ${clock(app.loadedAt, state.zone)} (${state.zone})` : ''),
      h('a', { href: new URL('v1/openapi.json', new URL('.', document.baseURI)).href, 'data-external': true }, 'API')));
  morph(shell, next);
  shell = document.getElementById('app');
}

function paintHeader() {
  morph(document.getElementById('top'), header());
}

async function refresh({ announce = false } = {}) {
  app.abort?.abort();
  const abort = new AbortController();
  app.abort = abort;
  app.state = readState();
  app.loading = true;
  paint();
  try {
    if (!app.me) app.me = await get('me', {}, { signal: abort.signal });
    if (app.page.ranged !== false) loadDimensions(abort);
    const rates = loadRates(abort);
    if (app.state.params.get('currency')) await rates; // money waits for the rate it is shown at
    if (app.me.tenant) app.state.filters = app.state.filters.filter(({ name }) => TENANT_FILTERS.includes(name));
    const data = await app.page.load(context());
    if (app.abort !== abort) return;
    Object.assign(app, { data, loadedAt: Date.now(), problem: null });
    if (announce) say(`${app.page.title}: figures loaded.`);
  } catch (error) {
    if (error.name === 'AbortError' || app.abort !== abort) return;
    fail(error);
  } finally {
    if (app.abort === abort) {
      app.loading = false;
      paint();
    }
  }
  if (app.me && !app.feed) startFeed();
}

function fail(error) {
  if (error.status === undefined) console.error(error);
  app.problem = error.status === undefined ? { title: 'This page failed', detail: error.message, code: 'drawing' } : error;
  if (error.status === 401) {
    Object.assign(app, { data: null, me: null });
    askForKey(apiKey() ? `This key is not accepted: ${error.detail}` : 'This address asks for a key.', restart);
  }
}

/** The values filters offer; the page does not wait for them. */
async function loadDimensions(abort) {
  const { from, to } = app.state.range;
  try {
    app.dimensions = await get('dimensions', { from: iso(from), to: iso(to) }, { signal: abort.signal });
  } catch {
    return; // the menu shows what is in use; the page itself reports errors
  }
  if (app.abort === abort) paint();
}

/** The rates of the currency switch; without them money is in USD. */
async function loadRates(abort) {
  try {
    app.rates = (await get('rates', {}, { signal: abort.signal })).rates;
  } catch {
    return; // the page itself reports errors
  }
  if (app.abort === abort) paint();
}

/** Another key: nothing that was loaded with the old one stays. */
function restart() {
  Object.assign(app, { me: null, data: null, live: null, dimensions: null, rates: null, problem: null });
  refresh({ announce: true }).then(() => app.feed?.reconnect());
}

// Live

let lastRefresh = 0;
function refreshSoon() {
  if (document.hidden || app.loading || Date.now() - lastRefresh < REFRESH_AT_MOST_EVERY_MS) return;
  if (!app.state.moving && app.page.ranged !== false) return;
  lastRefresh = Date.now();
  refresh();
}

function startFeed() {
  app.feed = new LiveFeed({
    onFigures(figures) {
      app.live = figures;
      if (app.page.followsLive) paint();
      else paintHeader(); // hundreds of GPUs need not be drawn again because a figure in the header moved
      if (figures.changed) refreshSoon();
    },
    onPoll() {
      app.live = null;
      refreshSoon();
    },
    onState(state) {
      if (state === POLLING) say('Live updates are not available; the page refreshes every 15 seconds.');
      paintHeader();
    },
  });
  app.feed.start();
}

// Navigation

function navigate() {
  const state = readState();
  const name = Object.hasOwn(PAGES, state.page) ? state.page : '';
  const page = PAGES[name];
  const other = page !== app.page;
  const arrived = app.page === null; // a document just opened: its start is where the focus belongs
  Object.assign(app, { state, page });
  document.title = name === '' ? 'GPU Token Analytics' : `${page.title} · GPU Token Analytics`;
  if (other) Object.assign(app, { data: null, problem: null });
  refresh({ announce: true });
  if (other && !arrived) {
    scrollTo(0, 0);
    document.getElementById('title')?.focus({ preventScroll: true });
  }
  document.querySelector('nav [aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'nearest' }); // the strip of a phone
}

document.addEventListener('click', (event) => {
  const link = event.target.closest('a[href]');
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !plain || link.target || link.download || 'external' in link.dataset) return;
  if (link.classList.contains('skip')) {
    event.preventDefault(); // a fragment would be a new entry in the history
    document.getElementById('main').focus();
    return;
  }
  const url = new URL(link.href);
  if (url.origin !== location.origin || url.protocol === 'blob:') return;
  event.preventDefault();
  go(link.href);
});
addEventListener('popstate', navigate);
addEventListener('statechange', navigate);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => paint());

shell = document.getElementById('app');
shell.replaceChildren();
navigate();
