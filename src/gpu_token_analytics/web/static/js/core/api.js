/** /v1, as the page asks it. The key lives in sessionStorage: it is gone with the tab and never leaves this origin. */

import { parseJson } from './json.js';

const base = new URL('v1/', new URL('.', document.baseURI));
const STORED_KEY = 'gpu-tokens-key';
const MOST_WAIT_SECONDS = 5;
let memoryKey = null; // where storage is refused

/** An error answer (RFC 9457), or no answer at all (code `network`). */
export class ApiProblem extends Error {
  constructor({ status = 0, code = 'network', title = '', detail = '', nearest = null, instance = null, errors = [] }) {
    super(detail || title);
    Object.assign(this, { status, code, title, detail, nearest, instance, errors });
  }
}

/** The key in use, or null. */
export function apiKey() {
  try {
    return sessionStorage.getItem(STORED_KEY) ?? memoryKey;
  } catch {
    return memoryKey;
  }
}

/** Use this key from now on; null forgets it. */
export function setApiKey(key) {
  memoryKey = key;
  try {
    if (key === null) sessionStorage.removeItem(STORED_KEY);
    else sessionStorage.setItem(STORED_KEY, key);
  } catch {
    // Storage is refused: the key lasts until the page is reloaded.
  }
}

/** URL of a route with its parameters (arrays repeat, null is left out). */
export function apiUrl(path, params = {}) {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(params)) {
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item !== null && item !== undefined) url.searchParams.append(name, item);
    }
  }
  return url;
}

/** fetch with the key; throws ApiProblem for every answer that is not 2xx, and when none came. */
export async function call(path, params, { signal, method = 'GET', body, accept = 'application/json' } = {}) {
  const headers = { Accept: accept };
  const key = apiKey();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  const request = { method, headers, signal, body, cache: 'no-store', credentials: 'omit' };
  let response = await send(apiUrl(path, params), request);
  if (response.status === 429) { // this key's share is used up for the moment: once more, as late as the server says
    const seconds = Math.min(MOST_WAIT_SECONDS, Number(response.headers.get('Retry-After')) || 1);
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    response = await send(apiUrl(path, params), request);
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function send(url, request) {
  try {
    return await fetch(url, request);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiProblem({ title: 'No answer', detail: 'The api process cannot be reached.' });
  }
}

async function problemOf(response) {
  const text = await response.text().catch(() => '');
  let found = {};
  try {
    found = JSON.parse(text);
  } catch {
    // Not ours: a proxy in between answered.
  }
  const { title, detail, code, nearest, instance, errors } = found;
  return new ApiProblem({
    status: response.status,
    code: code ?? `http_${response.status}`,
    title: title ?? `HTTP ${response.status}`,
    detail: typeof detail === 'string' ? detail : `${new URL(response.url).pathname} answered ${response.status}.`,
    nearest,
    instance,
    errors,
  });
}

/** GET as JSON with exact integers. */
export async function get(path, params, options) {
  const response = await call(path, params, options);
  return parseJson(await response.text());
}

/** POST JSON. */
export async function post(path, value, options) {
  const response = await call(path, {}, { ...options, method: 'POST', body: JSON.stringify(value) });
  return parseJson(await response.text());
}

/** All pages of a paged answer, the items of `field` joined; at most `most` items. */
export async function getAll(path, params, field, { signal, most = 5000 } = {}) {
  let answer = await get(path, params, { signal });
  const items = [...answer[field]];
  while (answer.next && items.length < most) {
    const more = await get(path, { ...params, cursor: answer.next }, { signal });
    items.push(...more[field]);
    answer = { ...answer, next: more.next };
  }
  return { ...answer, [field]: items };
}
