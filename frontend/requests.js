// Requests to the server: one in flight and the newest waiting, failures in words, tries again.

/** What went wrong, in words for the page. */
export class Failure extends Error {
  constructor(kind, text, { wait = null, hint = null } = {}) {
    super(text);
    Object.assign(this, { kind, wait, hint });
  }
}

/** Fetch a path, relative to the page, which a proxy may serve below one of its own; throw a `Failure` unless the answer is good. */
export async function get(path, signal) {
  let response;
  try {
    response = await fetch(path, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("gone", "The server does not answer. Is app.py still running?");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  if (response.status === 503 && !said.hint) {
    const seconds = Number(response.headers.get("Retry-After"));
    throw new Failure("busy", "The server is busy with other requests.", { wait: seconds > 0 ? seconds : 1 });
  }
  throw new Failure("refused", said.error ?? `The server answered with status ${response.status}.`, { hint: said.hint });
}

/** Fetch a file whole, with the name under which the server says to store it. */
export async function getFile(path) {
  const response = await get(path);
  const [, name] = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "") ?? [];
  return { file: await whole(response.blob()), name: name ?? "galaxy" };
}

export const getJson = async (path, signal) => whole((await get(path, signal)).json());

/** What can be asked for, see /api/model; a colour such as g - r is written with a minus sign. */
export async function getCatalogue() {
  const catalogue = await getJson("api/model");
  for (const attribute of catalogue.models.flatMap(({ attributes }) => attributes)) attribute.label = attribute.label.replaceAll(" - ", " − ");
  return catalogue;
}

/** Wait for the body of an answer, which may break off after a good beginning. */
async function whole(body) {
  try {
    return await body;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("gone", "The connection broke before the answer was there.");
  }
}

/** Fetch a picture and decode it, so that it can be shown without a blank moment. */
export const getPicture = async (path, signal) => (await getGalaxy(path, signal)).picture;

/** Do so with the picture of a galaxy; `support` says whether it is like real ones, null if a proxy left that out. */
export async function getGalaxy(path, signal) {
  const response = await get(path, signal);
  const file = await whole(response.blob());
  try {
    return { picture: await createImageBitmap(file), support: response.headers.get("Galaxy-Support") };
  } catch {
    throw new Failure("refused", "The server sent a picture that this browser cannot read.");
  }
}

/**
 * Ask for one thing after another where only the newest counts, such as the picture during a drag.
 *
 * One request is in flight; of those that come meanwhile only the newest waits. A superseded request is aborted once it
 * has taken clearly longer than is usual: aborting it at once would let a steady drag never see a picture.
 */
export class Lane {
  #running = null;
  #waiting = null;
  #done = null; // key of what was last shown
  #usual = 50; // ms
  #failures = 0;
  #pause = 0; // timer of the next try
  #impatience = 0; // timer of an abort

  /** @param {(text: string) => void} say called with a failure in words, or "" when it is over */
  constructor(say) {
    this.say = say;
  }

  get idle() {
    return !this.#running && !this.#waiting;
  }

  /**
   * @param {{key: string, work: (signal: AbortSignal) => Promise, show: (result, ms: number) => void,
   *   failed: (() => void)?, done: (() => void)?}} job  `failed` is called at each failure, be it tried again or not;
   *   `done` when nothing is asked for any more, for better or worse
   */
  ask(job) {
    if (this.idle && job.key === this.#done) {
      this.#recover();
      job.done?.();
      return;
    }
    if (job.key === (this.#waiting ?? this.#running)?.key) return;
    this.#waiting = job;
    if (this.#running) this.#grow();
    else if (!this.#pause) this.#next();
  }

  /** Forget what was shown and what waits. */
  clear() {
    this.#waiting = this.#done = null;
    this.#running?.control.abort();
    this.#recover();
  }

  /** Try at once what a failure holds back. */
  hurry() {
    if (this.#pause) this.#resume();
  }

  #grow() {
    if (this.#impatience) return;
    const age = performance.now() - this.#running.began;
    this.#impatience = setTimeout(() => {
      this.#usual = Math.max(this.#usual, performance.now() - this.#running.began);
      this.#running.control.abort();
    }, Math.max(0, 2 * this.#usual - age));
  }

  #resume() {
    clearTimeout(this.#pause);
    this.#pause = 0;
    this.#next();
  }

  #recover() {
    this.#failures = 0;
    clearTimeout(this.#pause);
    this.#pause = 0;
    this.say("");
  }

  async #next() {
    const job = this.#waiting;
    if (!job) return;
    const run = { key: job.key, control: new AbortController(), began: performance.now() };
    this.#running = run;
    this.#waiting = null;
    try {
      const result = await job.work(run.control.signal);
      if (run.control.signal.aborted) return;
      const ms = performance.now() - run.began;
      this.#usual += 0.3 * (ms - this.#usual);
      this.#done = job.key;
      this.#recover();
      job.show(result, ms);
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error, job);
    } finally {
      clearTimeout(this.#impatience);
      this.#impatience = 0;
      this.#running = null;
      if (this.idle) job.done?.();
      if (!this.#pause) this.#next();
    }
  }

  #fail(error, job) {
    if (!(error instanceof Failure)) throw error;
    job.failed?.();
    if (error.kind === "refused") {
      this.say(error.message);
      return;
    }
    this.#waiting ??= job;
    const wait = error.wait ?? Math.min(8, 2 ** this.#failures);
    this.#failures += 1;
    this.say(`${error.message} Trying again in ${wait} s.`);
    this.#pause = setTimeout(() => this.#resume(), 1000 * wait * (1 + 0.2 * Math.random()));
  }
}
