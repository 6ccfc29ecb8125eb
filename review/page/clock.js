/** Seconds that somebody spent on an item: only while the page can be seen. */
export class Clock {
  #spent = 0; // milliseconds before `#since`
  #since = null;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#follow());
    this.#follow();
  }

  #follow() {
    if (document.hidden && this.#since !== null) {
      this.#spent += performance.now() - this.#since;
      this.#since = null;
    } else if (!document.hidden && this.#since === null) {
      this.#since = performance.now();
    }
  }

  /** Seconds since the last start, without those in which nobody saw the page. */
  get seconds() {
    return (this.#spent + (this.#since === null ? 0 : performance.now() - this.#since)) / 1000;
  }

  /** Starts anew, from the seconds that the item has already. */
  start(seconds = 0) {
    this.#spent = seconds * 1000;
    if (this.#since !== null) this.#since = performance.now();
  }
}
