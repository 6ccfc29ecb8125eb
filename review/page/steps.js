/** What this annotator did last in a mode, to be undone step by step; also after the page was closed. */
const MOST = 30;

export class Steps {
  #key;

  constructor(vault, mode) {
    this.vault = vault;
    this.#key = `steps/${mode}`;
  }

  get all() {
    return this.vault.get(this.#key) ?? [];
  }

  /**
   * @param {{type: "save", task: Object, annotation_id: string, value: Object, seconds: number, group?: string}|
   *   {type: "done", task_id: string, seconds: number}} step `group`: what was done at once is undone at once.
   */
  push(step) {
    this.vault.put(this.#key, [...this.all, step].slice(-MOST));
  }

  /** Takes the last step, or undefined. */
  pop() {
    const steps = this.all;
    const step = steps.at(-1);
    if (step) this.vault.put(this.#key, steps.slice(0, -1));
    return step;
  }

  /** Forgets the step of a judgement that does not stand. */
  forget(annotation_id) {
    this.vault.put(this.#key, this.all.filter((step) => step.annotation_id !== annotation_id));
  }

  /** Mean seconds of the last items. */
  get pace() {
    const seconds = this.all.map((step) => step.seconds);
    return seconds.length ? seconds.reduce((sum, each) => sum + each, 0) / seconds.length : null;
  }
}
