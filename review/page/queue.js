/** Tasks fetched ahead, so that going on takes no waiting, and their leases. */
import { Refused, post, serverTime } from "./api.js";

const RENEW_EVERY = 30_000; // milliseconds
const IDLE = 240_000; // without a touch or key for so long, nobody works here: leases may run out

/** Tasks of one mode. */
export class TaskQueue {
  #ahead = [];
  #filling = null;
  #held;

  /**
   * @param {string} mode
   * @param {{ahead: number, held: () => string[]}} options `ahead`: how many to have ready; `held`:
   *   ids of tasks that the page has besides.
   */
  constructor(mode, { ahead, held }) {
    this.mode = mode;
    this.wanted = ahead;
    this.#held = held;
  }

  /** Tasks that are ready. */
  get ready() {
    return this.#ahead;
  }

  /** Takes the next `count` tasks; fewer, or none, when no more are to be had. @throws {Refused|Unreachable} */
  async take(count = 1) {
    if (this.#ahead.length < count) await this.fill(count);
    const taken = this.#ahead.splice(0, count);
    return taken;
  }

  /** Fetches until `count` tasks are ready. One request at a time. */
  async fill(count = this.wanted) {
    while (this.#filling) await this.#filling.catch(() => {});
    if (this.#ahead.length >= count) return;
    this.#filling = this.#fetch(count - this.#ahead.length);
    try {
      await this.#filling;
    } finally {
      this.#filling = null;
    }
  }

  async #fetch(count) {
    // What this annotator held before, such as before the page was closed, comes again unless it is here.
    const known = () => [...this.#ahead.map((task) => task.task_id), ...this.#held()];
    const answer = await post("/api/next", { mode: this.mode, count: Math.min(24, count), have: known() });
    const here = new Set(known());
    this.#ahead.push(...answer.tasks.filter((task) => !here.has(task.task_id)));
    this.left = answer.left;
  }

  /** Puts a task before the others. */
  putBack(task) {
    this.#ahead = [task, ...this.#ahead.filter((each) => each.task_id !== task.task_id)];
  }

  /** Takes a task out of what is ready. */
  drop(taskId) {
    this.#ahead = this.#ahead.filter((task) => task.task_id !== taskId);
  }

  /** Gives tasks back: others may have them at once, this annotator when nothing else is left. */
  release(tasks) {
    // A lease that is not given back runs out by itself.
    for (const task of tasks) post("/api/release", { task_id: task.task_id }).catch(() => {});
  }
}

/** Renews leases while somebody works on this page. */
export class Leases {
  #timer = 0;
  #lastTouch = Date.now();
  #renewing = false;

  /**
   * @param {() => Object[]} held Returns the tasks to renew.
   * @param {(task: Object) => void} lost Is told of each task whose lease ran out, once.
   * @param {(task: Object) => void} renewed Is told of each task that is the page's again after it had been lost.
   */
  constructor(held, lost, renewed) {
    this.held = held;
    this.lost = lost;
    this.renewed = renewed;
    for (const kind of ["keydown", "pointerdown", "pointermove", "input"]) {
      addEventListener(kind, () => this.#touched(), { passive: true, capture: true });
    }
    this.#timer = setInterval(() => this.#look(), 2_000);
    this.nextRenewal = Date.now() + RENEW_EVERY;
  }

  #touched() {
    this.#lastTouch = Date.now();
  }

  #look() {
    const working = !document.hidden && Date.now() - this.#lastTouch < IDLE;
    if (working && Date.now() > this.nextRenewal) this.renew();
    for (const task of this.held()) {
      if (Date.parse(task.until) > serverTime() || task.expired) continue;
      if (working) this.renew();
      else this.#expire(task);
    }
  }

  #expire(task) {
    if (task.expired) return;
    task.expired = true;
    this.lost(task);
  }

  /** Asks for all leases again. */
  async renew() {
    const tasks = this.held();
    if (this.#renewing || !tasks.length) return;
    this.#renewing = true;
    this.nextRenewal = Date.now() + RENEW_EVERY;
    try {
      const answer = await post("/api/renew", { task_ids: tasks.map((task) => task.task_id) });
      const lost = new Set(answer.lost ?? []);
      for (const task of tasks) {
        if (lost.has(task.task_id)) {
          this.#expire(task);
        } else {
          task.until = answer.until;
          if (task.expired) this.renewed(task);
          task.expired = false;
        }
      }
    } catch (error) {
      // Without an answer the leases stand as they were, and run out when they do.
      for (const task of tasks) if (Date.parse(task.until) <= serverTime()) this.#expire(task);
      if (error instanceof Refused && error.status !== 401) this.nextRenewal = Date.now() + 5_000;
    } finally {
      this.#renewing = false;
    }
  }
}
