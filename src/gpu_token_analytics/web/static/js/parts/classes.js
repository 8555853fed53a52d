/** The five classes of money: names, what they mean, what to do. Colour is never the only sign: each has its own pattern. */

import { h } from '../core/dom.js';
import { nusd } from '../core/format.js';

export const CLASSES = [
  { key: 'attributed', label: 'Attributed', short: 'A', level: 1, hint: 'Spent on requests that were recorded.' },
  { key: 'unmetered_work', label: 'Unmetered work', short: 'U', level: 0.8,
    hint: 'The GPU was busy but no request is known: connect the engine that ran there.' },
  { key: 'warm_idle', label: 'Warm idle', short: 'W', level: 0.55,
    hint: 'A model is loaded and nothing runs: share the GPU, or unload at quiet hours.' },
  { key: 'cold_idle', label: 'Cold idle', short: 'C', level: 0.3, hint: 'No model is loaded: give the GPU work, or give it back.' },
  { key: 'unobserved', label: 'Unobserved', short: '?', level: 0.8,
    hint: 'Paid for, but no sample arrived: check the agent on that host.' },
];
/** Idle, wherever the page says so. Unmetered work is not: the GPU worked. */
export const IDLE = CLASSES.filter(({ key }) => ['warm_idle', 'cold_idle', 'unobserved'].includes(key));

/** The class of a key. */
export function classOf(key) {
  return CLASSES.find((item) => item.key === key);
}

/** The BigInt of a class in a Money object. */
export function classMoney(moneyRow, key) {
  return nusd(moneyRow[`${key}_nusd`]) ?? 0n;
}

/** The idle part of a Money object, a BigInt. */
export function idleMoney(moneyRow) {
  return IDLE.reduce((sum, { key }) => sum + classMoney(moneyRow, key), 0n);
}

/** A small square in the class's colour and pattern. */
export function swatch(key) {
  return h('span', { class: `swatch fill-${key}`, 'aria-hidden': 'true' });
}

/** Swatch and name. */
export function classLabel(key) {
  return h('span', { class: 'class-label' }, swatch(key), classOf(key).label);
}
