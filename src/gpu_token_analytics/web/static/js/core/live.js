/**
 * Live figures: /v1/stream (server-sent events) while it works, polling when it does not, nothing while the tab is hidden or
 * the reader has paused. Read with fetch, because EventSource cannot send the key as a header.
 */

import { call } from './api.js';
import { parseJson } from './json.js';

const SILENT_MS = 45_000; // the server sends heartbeats more often than this
const POLL_MS = 15_000;
const RETRY_MS = [1_000, 2_000, 5_000, 15_000, 30_000];

export const LIVE = 'live';
export const POLLING = 'polling';
export const PAUSED = 'paused';
export const CONNECTING = 'connecting';

/** Events of one text/event-stream body. */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer = (buffer + value).replaceAll('\r\n', '\n');
      const blocks = buffer.split('\n\n');
      buffer = blocks.pop();
      for (const block of blocks) yield parseEvent(block);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseEvent(block) {
  const event = { type: 'message', data: [] };
  for (const line of block.split('\n')) {
    const match = /^(event|data): ?(.*)$/.exec(line);
    if (match?.[1] === 'event') event.type = match[2];
    if (match?.[1] === 'data') event.data.push(match[2]);
  }
  return { type: event.type, data: event.data.join('\n') };
}

/** `onFigures(live)` for each event, `onPoll()` when it is time to ask instead, `onState(state)` for the light in the header. */
export class LiveFeed {
  #callbacks;
  #abort = null;
  #timer = null;
  #failures = 0;
  #paused = false;
  #started = false;
  state = CONNECTING;

  constructor(callbacks) {
    this.#callbacks = callbacks;
    document.addEventListener('visibilitychange', () => this.#visibilityChanged());
  }

  start() {
    this.#started = true;
    this.#restart();
  }

  get paused() {
    return this.#paused;
  }

  setPaused(paused) {
    this.#paused = paused;
    this.#visibilityChanged();
  }

  /** Start over, with another key. */
  reconnect() {
    this.#failures = 0;
    if (this.state !== PAUSED) this.#restart();
  }

  #visibilityChanged() {
    if (!this.#started) return;
    if (this.#paused || document.hidden) {
      this.#stop();
      this.#enter(PAUSED);
    } else if (this.state === PAUSED) {
      this.#callbacks.onPoll(); // what was missed
      this.#restart();
    }
  }

  #enter(state) {
    if (this.state === state) return;
    this.state = state;
    this.#callbacks.onState(state);
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#abort = null;
  }

  #restart() {
    this.#stop();
    if (this.state === PAUSED) this.#enter(CONNECTING);
    this.#abort = new AbortController();
    this.#follow(this.#abort);
  }

  async #follow(abort) {
    let watchdog;
    const stillThere = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => abort.abort(), SILENT_MS);
    };
    try {
      stillThere();
      const response = await call('stream', {}, { signal: abort.signal, accept: 'text/event-stream' });
      for await (const event of readEvents(response.body)) {
        stillThere();
        this.#failures = 0;
        this.#enter(LIVE);
        if (event.type === 'live') this.#callbacks.onFigures(parseJson(event.data));
      }
    } catch {
      // Handled below: a stream that ends and one that fails are the same to the reader.
    } finally {
      clearTimeout(watchdog);
    }
    if (this.#abort === abort) this.#retryLater();
  }

  #retryLater() {
    const wait = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)];
    this.#failures += 1;
    if (this.#failures >= 2) {
      this.#enter(POLLING);
      this.#callbacks.onPoll();
    }
    this.#timer = setTimeout(() => this.#restart(), this.#failures >= 2 ? Math.max(wait, POLL_MS) : wait);
  }
}
