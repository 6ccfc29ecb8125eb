/**
 * Saves on their way to the server, in the order in which they were made. The page goes on at once; what did not arrive
 * is sent again, under the same annotation id, until the server has it or refuses it.
 */
import { Refused, Unreachable, newId, post, renew } from "./api.js";

const PATHS = { save: "/api/save", undo: "/api/undo", done: "/api/done" };
const PATIENCE = [500, 1000, 2000, 4000, 8000]; // milliseconds between attempts

/** Events: `change`, `answer` ({entry, answer}), `refused` ({entry, refusal}), `login`. */
export class Outbox extends EventTarget {
  #vault;
  #sending = null; // the entry that is on its way
  #attempts = 0;
  #timer = 0;
  #number = 0;

  constructor(vault) {
    super();
    this.#vault = vault;
    addEventListener("online", () => this.flush());
    this.flush();
  }

  /** Entries that the server has not confirmed yet, oldest first. */
  get waiting() {
    return this.#vault.entries("outbox/").map(([, entry]) => entry);
  }

  /** Whether sending failed, and is tried again. */
  get failing() {
    return this.#attempts > 0;
  }

  /** Ids of the tasks that something is on its way for. */
  get taskIds() {
    return this.waiting.map((entry) => entry.task_id);
  }

  /** Sends a judgement. Returns its annotation id. */
  save(task, value, seconds, more = {}) {
    const annotation_id = newId();
    const body = { task_id: task.task_id, annotation_id, value, seconds: Math.round(seconds * 10) / 10, ...more };
    this.#add("save", task, body);
    return annotation_id;
  }

  /** Says that a task with several edits is finished. */
  done(task, seconds) {
    this.#add("done", task, { task_id: task.task_id, seconds: Math.round(seconds * 10) / 10 });
  }

  /** Takes a judgement back, wherever it is now. */
  undo(task, annotation_id) {
    const own = this.waiting.find((entry) => entry.body.annotation_id === annotation_id && entry.type === "save");
    // What was tried once may have arrived although no answer came.
    if (own && !own.tried) {
      this.#vault.delete(own.key);
      this.#changed();
    } else {
      this.#add("undo", task, { annotation_id });
    }
  }

  /** Waits until the server has everything. @throws {Unreachable} Sending failed, and is tried again later. */
  drained() {
    return new Promise((resolve, reject) => {
      const look = () => {
        if (this.waiting.length && !this.failing) return; // not yet
        this.removeEventListener("change", look);
        if (this.failing) reject(new Unreachable("the server does not answer"));
        else resolve();
      };
      this.addEventListener("change", look);
      look();
    });
  }

  /** Tries to send now. */
  flush() {
    clearTimeout(this.#timer);
    if (!this.#sending) this.#send();
  }

  #add(type, task, body) {
    this.#number += 1;
    // Two windows of one annotator share the vault: keys are in the order of time, and no two are the same.
    const order = [Date.now(), this.#number].map((number) => String(number).padStart(15, "0"));
    const key = `outbox/${order.join("-")}-${newId().slice(0, 8)}`;
    const entry = { key, type, task_id: task.task_id, task, body, tried: false };
    this.#vault.put(key, entry);
    this.#changed();
    this.flush();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  async #send() {
    const entry = this.waiting[0];
    if (!entry) return;
    this.#sending = entry;
    entry.tried = true;
    this.#vault.put(entry.key, entry);
    try {
      const answer = await this.#deliver(entry);
      this.#settle(entry);
      this.dispatchEvent(new CustomEvent("answer", { detail: { entry, answer } }));
    } catch (error) {
      if (error instanceof Unreachable || (error instanceof Refused && error.status === 401)) {
        const pause = PATIENCE[Math.min(this.#attempts, PATIENCE.length - 1)];
        this.#attempts += 1;
        this.#timer = setTimeout(() => this.flush(), pause);
        this.#sending = null;
        this.#changed();
        if (error instanceof Refused) this.dispatchEvent(new Event("login"));
        return;
      }
      this.#settle(entry);
      if (!(error instanceof Refused)) throw error;
      this.dispatchEvent(new CustomEvent("refused", { detail: { entry, refusal: error } }));
    }
    this.#changed();
    this.#send();
  }

  #settle(entry) {
    this.#vault.delete(entry.key);
    this.#attempts = 0;
    this.#sending = null;
  }

  async #deliver(entry) {
    try {
      return await post(PATHS[entry.type], entry.body);
    } catch (error) {
      // The lease ran out before the save came: where nobody else has the item, it is taken again.
      if (!(error instanceof Refused) || error.status !== 409 || entry.type === "undo") throw error;
      await renew({ task_id: entry.task_id });
      return post(PATHS[entry.type], entry.body);
    }
  }
}
