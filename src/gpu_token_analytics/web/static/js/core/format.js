/**
 * Figures as people read them, money in the shown currency (currency.js). Money comes as whole nano-USD (number or BigInt)
 * and is converted and divided as BigInt, never as a double; rates come as doubles of USD and are shown with three digits.
 * Nothing here turns an unknown into a number.
 */

import { billionths, inShown, shownCurrency } from './currency.js';
import { h, srOnly } from './dom.js';

const NANOS = 1_000_000_000n;
const LOCALE = 'en-US';
const whole = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat(LOCALE, { notation: 'compact', maximumSignificantDigits: 3 });
const threeDigits = new Intl.NumberFormat(LOCALE, { notation: 'compact', minimumSignificantDigits: 3, maximumSignificantDigits: 3 });

/** Nano-USD as BigInt; null stays null. */
export function nusd(value) {
  return value === null || value === undefined ? null : BigInt(value);
}

/** Sum of nano-USD values; null when all are unknown. */
export function sumNusd(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length === 0 ? null : known.reduce((sum, value) => sum + BigInt(value), 0n);
}

/** Nano-USD as a double of USD: for the length of a bar only, never for a figure. */
export function usdForScale(value) {
  return Number(value ?? 0) / 1e9;
}

function group(digits) {
  return digits.replace(/\B(?=(\d{3})+(?!\d))/g, ',');
}

/** Billionths of a unit of the shown currency, or of what `prefix` says. */
function decimal(value, decimals, { prefix } = shownCurrency()) {
  const unit = 10n ** BigInt(9 - decimals);
  const negative = value < 0n;
  const rounded = ((negative ? -value : value) + unit / 2n) / unit;
  const text = rounded.toString().padStart(decimals + 1, '0');
  const head = group(decimals === 0 ? text : text.slice(0, -decimals));
  const tail = decimals === 0 ? '' : `.${text.slice(-decimals)}`;
  return `${negative && rounded !== 0n ? '\u2212' : ''}${prefix}${head}${tail}`;
}

const UNKNOWN = 'unknown';

function zero() {
  return `${shownCurrency().prefix}0`;
}

/** `$1,234.56`; below a dollar three digits (`$0.0232`); from 100,000 whole dollars. */
export function money(value) {
  if (nusd(value) === null) return UNKNOWN;
  const exact = inShown(nusd(value));
  if (exact === 0n) return zero();
  const size = exact < 0n ? -exact : exact;
  if (size >= 100_000n * NANOS) return decimal(exact, 0);
  if (size >= NANOS) return decimal(exact, 2);
  const leadingZeros = 9 - size.toString().length;
  return decimal(exact, Math.min(9, leadingZeros + 3)).replace(/(\.\d{2}\d*?)0+$/, '$1');
}

/**
 * How to write the money of one column or chart: where its largest value passes a dollar, cents for all and `<$0.01` for
 * crumbs, so that a share of a rounding does not look like a measurement; else each with three digits.
 */
export function moneyLike(values) {
  const most = values.reduce((max, value) => (nusd(value) > max ? nusd(value) : max), 0n);
  if (inShown(most) < NANOS) return money;
  const places = inShown(most) >= 100_000n * NANOS ? 0 : 2;
  return (value) => {
    if (nusd(value) === null) return UNKNOWN;
    const exact = inShown(nusd(value));
    if (exact === 0n) return zero();
    return exact > 0n && exact < NANOS / 200n ? `<${shownCurrency().prefix}0.01` : decimal(exact, places);
  };
}

/** A sentence of the API: text, and amounts in nano-USD. */
export function worded(pieces) {
  return pieces.map((piece) => (typeof piece === 'string' ? piece : money(piece))).join('');
}

/** All nine decimals: `$0.023236074`. */
export function moneyExact(value) {
  return nusd(value) === null ? UNKNOWN : decimal(inShown(nusd(value)), 9);
}

/** The same as the ledger counts: in USD, whatever is shown. */
export function ledgerMoney(value) {
  return decimal(nusd(value), 9, { prefix: '$' });
}

/** `$/M`, in the shown currency. */
export function unit(per) {
  return `${shownCurrency().prefix.trim()}/${per}`;
}

/** A rate in USD (a double): three digits, `$0.31`, `$12.4`, `$1,240`. */
export function rate(usd, digits = 3) {
  const { prefix, factor } = shownCurrency();
  const value = usd * factor;
  if (value === 0) return zero();
  if (Math.abs(value) >= 1000) return `${prefix}${whole.format(Number(value.toPrecision(digits)))}`;
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return `${prefix}${value.toFixed(Math.min(places, 10))}`;
}

/** Labels of an axis of USD, in units of the shown currency (see scale): all ticks with the decimals their step needs. */
export function axisMoney(value, step) {
  const { prefix } = shownCurrency();
  if (value === 0) return '0';
  if (value >= 10_000) return `${prefix}${compact.format(value)}`;
  const needed = String(Number(step.toPrecision(3))).split('.')[1]?.length ?? 0;
  const decimals = needed > 0 ? Math.max(2, needed) : 0;
  return `${prefix}${value.toLocaleString(LOCALE, { minimumFractionDigits: decimals, maximumFractionDigits: decimals })}`;
}
/** What the values of such an axis are multiplied with, so that its ticks are round in the shown currency. */
axisMoney.scale = () => shownCurrency().factor;

/** A price of a price row, in USD: as it was given, without trailing zeros past cents. */
export function priceGiven(text) {
  return `$${String(text).replace(/(\.\d{2}\d*?)0+$/, '$1')}`;
}

/** The same in the shown currency. */
export function price(text) {
  return shownCurrency().code === 'USD' ? priceGiven(text) : money(billionths(text));
}

/** `1.24M`, `15.0M`: below one another all have three digits. Below a thousand as it is. */
export function count(value) {
  return value < 1000 ? compact.format(value) : threeDigits.format(value);
}

/** `1,240,112`. */
export function integer(value) {
  return whole.format(value);
}

/** Three digits with a unit: `12.3 W`, `55.0 W`. */
export function quantity(value, unit) {
  const digits = value === 0 || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return `${value.toLocaleString(LOCALE, { minimumFractionDigits: digits, maximumFractionDigits: digits })}\u00a0${unit}`;
}

/** `87.3 %`; nothing is rounded to all or nothing: `<0.1 %`, `>99.9 %`. */
export function percent(share) {
  const value = share * 100;
  if (value === 0 || value === 100) return `${value}\u00a0%`;
  if (Math.abs(value) < 0.05) return '<0.1\u00a0%';
  if (value < 100 && value > 99.95) return '>99.9\u00a0%';
  return `${value.toFixed(1)}\u00a0%`;
}

/** Milliseconds as `31 ms`, `312 ms`, `4.21 s`, `3 min 5 s`. */
export function duration(ms) {
  if (ms < 1000) return ms < 10 ? quantity(ms, 'ms') : `${whole.format(ms)}\u00a0ms`;
  if (ms < 60_000) return quantity(ms / 1000, 's');
  const minutes = Math.floor(ms / 60_000);
  if (minutes >= 120) return quantity(minutes / 60, 'h');
  return `${minutes}\u00a0min ${Math.round((ms % 60_000) / 1000)}\u00a0s`;
}

/**
 * Shares of BigInt parts in tenths of a percent that sum to exactly 1000: largest remainder, so a bar that fills is also
 * labelled with figures that add up.
 */
export function permille(parts) {
  const total = parts.reduce((sum, part) => sum + part, 0n);
  if (total <= 0n) return parts.map(() => 0);
  const floors = parts.map((part) => (part * 1000n) / total);
  const missing = 1000n - floors.reduce((sum, part) => sum + part, 0n);
  const order = parts
    .map((part, index) => ({ index, remainder: (part * 1000n) % total }))
    .sort((a, b) => (a.remainder === b.remainder ? a.index - b.index : a.remainder < b.remainder ? 1 : -1));
  order.slice(0, Number(missing)).forEach(({ index }) => (floors[index] += 1n));
  return floors.map(Number);
}

/** An unknown figure: a dash, and why. Tables repeat the reasons in words below (see table.js). */
export function unknown(reason) {
  return h('span', { class: 'unknown', title: reason, 'data-reason': reason }, h('span', { 'aria-hidden': 'true' }, '–'),
    srOnly(`unknown: ${reason}`));
}

/** `show(value)`, or the dash with its reason. */
export function known(value, show, reason) {
  return value === null || value === undefined ? unknown(reason) : show(value);
}
