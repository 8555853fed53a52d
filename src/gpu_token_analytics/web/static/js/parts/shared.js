/** What several pages show alike: a list of requests, how fresh a GPU is, a link into the price book. */

import { get } from '../core/api.js';
import { h } from '../core/dom.js';
import { duration, integer, known } from '../core/format.js';
import { hrefTo } from '../core/state.js';
import { ago, moment } from '../core/time.js';

/** The columns of a list of requests. */
export function requestColumns(state) {
  return [
    { key: 'id', label: 'Request', cell: (row) => h('a', { href: hrefTo('request', { id: row.request_id }) }, row.request_id) },
    { key: 'ts', label: 'Ended', cell: (row) => moment(Date.parse(row.ts), state.zone, true) },
    { key: 'model', label: 'Model', cell: (row) => row.model },
    { key: 'tenant', label: 'Tenant', cell: (row) => row.tenant },
    { key: 'in', label: 'Prompt', number: true, cell: (row) => integer(row.tokens.prompt) },
    { key: 'out', label: 'Completion', number: true, cell: (row) => integer(row.tokens.completion) },
    { key: 'latency', label: 'Latency', number: true, cell: (row) => known(row.latency_ms, duration, 'the engine did not send it') },
    { key: 'gpus', label: 'GPUs', number: true, cell: (row) => (row.gpus.length ? integer(row.gpus.length) : '1') },
  ];
}

/**
 * What GPUs are called, by id: `gpu-node-1 / 0`, as on the page GPUs. `gpus`: these ids only. Where nobody says it, or it
 * cannot be asked, the id is the name.
 */
export async function gpuNames(signal, gpus = null) {
  try {
    const list = await get('gpus', gpus ? { gpu: gpus, limit: 1000 } : { limit: 1000 }, { signal });
    return new Map(list.gpus.filter((gpu) => gpu.host !== null && gpu.gpu_index !== null)
      .map((gpu) => [gpu.gpu, `${gpu.host} / ${gpu.gpu_index}`]));
  } catch (error) {
    if (error.name === 'AbortError' || error.status === 401) throw error;
    return new Map();
  }
}

/** How fresh a GPU's newest sample is. */
export function stateBadge(gpu) {
  const texts = { live: 'live', stale: 'no fresh sample', silent: 'silent' };
  const when = gpu.sampled_at ? `, ${ago(Date.parse(gpu.sampled_at))}` : '';
  return h('span', { class: `badge ${gpu.state === 'live' ? 'good' : 'warn'}` }, gpu.state === 'live' ? texts.live : `${texts[gpu.state]}${when}`);
}

/** A link into the price book; the price of a sample is not in it. */
export function priceRow(row) {
  return row === 'sample' ? 'the GPU’s own samples' : h('a', { href: hrefTo('prices', { row }) }, h('code', null, row));
}
