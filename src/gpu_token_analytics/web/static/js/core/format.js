/**
 * Figures as people read them. Money comes as whole nano-USD (number or BigInt) and is divided as BigInt, never as a
 * double; rates come as doubles and are shown with three digits. Nothing here turns an unknown into a number.
 */

import { h, srOnly } from './dom.js';

const NUSD_PER_USD = 1_000_000_000n;
const LOCALE = 'en-US';
const whole = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat(LOCALE, { notation: 'compact', maximumSignificantDigits: 3 });

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

function decimal(value, decimals) {
  const unit = 10n ** BigInt(9 - decimals);
  const negative = value < 0n;
  const rounded = ((negative ? -value : value) + unit / 2n) / unit;
  const text = rounded.toString().padStart(decimals + 1, '0');
  const head = group(decimals === 0 ? text : text.slice(0, -decimals));
  const tail = decimals === 0 ? '' : `.${text.slice(-decimals)}`;
  return `${negative && rounded !== 0n ? '\u2212' : ''}$${head}${tail}`;
}

const UNKNOWN = 'unknown';

/** `$1,234.56`; below a dollar three digits (`$0.0232`); from 100,000 whole dollars. */
export function money(value) {
  const exact = nusd(value);
  if (exact === null) return UNKNOWN;
  if (exact === 0n) return '$0';
  const size = exact < 0n ? -exact : exact;
  if (size >= 100_000n * NUSD_PER_USD) return decimal(exact, 0);
  if (size >= NUSD_PER_USD) return decimal(exact, 2);
  const leadingZeros = 9 - size.toString().length;
  return decimal(exact, Math.min(9, leadingZeros + 3)).replace(/(\.\d{2}\d*?)0+$/, '$1');
}

/**
 * How to write the money of one column or chart: where its largest value passes a dollar, cents for all and `<$0.01` for
 * crumbs, so that a share of a rounding does not look like a measurement; else each with three digits.
 */
export function moneyLike(values) {
  const most = values.reduce((max, value) => (nusd(value) > max ? nusd(value) : max), 0n);
  if (most < NUSD_PER_USD) return money;
  return (value) => (nusd(value) === null ? UNKNOWN : nusd(value) > 0n && nusd(value) < NUSD_PER_USD / 200n ? '<$0.01' : nusd(value) === 0n ? '$0' : decimal(nusd(value), most >= 100_000n * NUSD_PER_USD ? 0 : 2));
}

/** All nine decimals: `$0.023236074`. */
export function moneyExact(value) {
  return nusd(value) === null ? UNKNOWN : decimal(nusd(value), 9);
}

/** A rate in USD (a double): three digits, `$0.31`, `$12.4`, `$1,240`. */
export function rate(value, digits = 3) {
  if (value === 0) return '$0';
  if (Math.abs(value) >= 1000) return `$${whole.format(Number(value.toPrecision(digits)))}`;
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return `$${value.toFixed(Math.min(places, 10))}`;
}

/** Labels of an axis in USD: all ticks with the decimals their step needs. */
export function axisUsd(value, step) {
  if (value === 0) return '0';
  if (value >= 10_000) return `$${compact.format(value)}`;
  const needed = String(Number(step.toPrecision(3))).split('.')[1]?.length ?? 0;
  const decimals = needed > 0 ? Math.max(2, needed) : 0;
  return `$${value.toLocaleString(LOCALE, { minimumFractionDigits: decimals, maximumFractionDigits: decimals })}`;
}

/** A price of a price row: as it was given, without trailing zeros past cents. */
export function price(text) {
  return `$${String(text).replace(/(\.\d{2}\d*?)0+$/, '$1')}`;
}

/** `1.24M`. */
export function count(value) {
  return compact.format(value);
}

/** `1,240,112`. */
export function integer(value) {
  return whole.format(value);
}

/** Three digits with a unit: `12.3 W`. */
export function quantity(value, unit) {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return `${Number(value.toFixed(digits)).toLocaleString(LOCALE)}\u00a0${unit}`;
}

/** `87.3 %`; nothing is rounded to all or nothing: `<0.1 %`, `>99.9 %`. */
export function percent(share) {
  const value = share * 100;
  if (value === 0 || value === 100) return `${value}\u00a0%`;
  if (Math.abs(value) < 0.05) return '<0.1\u00a0%';
  if (value < 100 && value > 99.95) return '>99.9\u00a0%';
  return `${value.toFixed(1)}\u00a0%`;
}

/** Milliseconds as `312 ms`, `4.21 s`, `3 min 5 s`. */
export function duration(ms) {
  if (ms < 1000) return quantity(ms, 'ms');
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
