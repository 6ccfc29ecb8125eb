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
    const { task_id, mode, clip, person_id } = task;
    this.vault.put(this.#key(task), { task_id, mode, clip_id: clip.clip_id, person_id, value, seconds, words, time: Date.now() });
  }

  forget(task) {
    this.vault.delete(this.#key(task));
  }

  /** All drafts, without that of the task in work. */
  others(current) {
    return this.vault
      .entries("draft/")
      .map(([, draft]) => draft)
      .filter((draft) => draft.task_id !== current?.task_id);
  }
}
