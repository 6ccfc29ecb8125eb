/** What somebody entered and has not saved, by task: offered again after whatever ended the page. */
export class Drafts {
  constructor(vault) {
    this.vault = vault;
  }

  #key(task) {
    return `draft/${task.mode}/${task.task_id}`;
  }

  get(task) {
    return this.vault.get(this.#key(task));
  }

  /** Keeps an entry. `words` say why it was not saved, where the server refused it. */
  keep(task, value, seconds, words = "") {
    this.vault.put(this.#key(task), { task, value, seconds, words, time: Date.now() });
  }

  forget(task) {
    this.vault.delete(this.#key(task));
  }

  /** All drafts, without that of the task in work. */
  others(current) {
    return this.vault
      .entries("draft/")
      .map(([, draft]) => draft)
      .filter((draft) => draft.task.task_id !== current?.task_id);
  }
}
