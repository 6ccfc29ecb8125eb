/**
 * What has to outlive the page: drafts, saves on their way, the steps to undo. IndexedDB, and not localStorage, because
 * a browser writes localStorage to the disk only after seconds: killed in between, it would have lost what was typed.
 */

const STORE = "kept";

/** Key-value store that is read at once, from memory, and written to the disk behind it. */
export class Vault {
  #database;
  #values;
  #failed;

  /**
   * Opens the vault of one annotator and dataset.
   * @param {string} owner Vaults of other owners on the same device stay apart.
   * @param {(words: string) => void} failed Is told when this browser cannot keep anything.
   */
  static async open(owner, failed) {
    const vault = new Vault();
    vault.#failed = failed;
    vault.#values = new Map();
    try {
      vault.#database = await new Promise((resolve, reject) => {
        const opening = indexedDB.open(`microg-review:${owner}`, 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
        opening.onsuccess = () => resolve(opening.result);
        opening.onerror = () => reject(opening.error);
      });
      await new Promise((resolve, reject) => {
        const reading = vault.#database.transaction(STORE).objectStore(STORE).openCursor();
        reading.onerror = () => reject(reading.error);
        reading.onsuccess = () => {
          const cursor = reading.result;
          if (!cursor) return resolve();
          vault.#values.set(cursor.key, cursor.value);
          cursor.continue();
        };
      });
    } catch (error) {
      vault.#database = null;
      failed(`This browser keeps no drafts (${error.message}): what is not saved is lost when the page closes.`);
    }
    return vault;
  }

  get(key) {
    return this.#values.get(key);
  }

  /** Returns [key, value] of all keys that start with `prefix`, in the order of the keys. */
  entries(prefix) {
    return [...this.#values].filter(([key]) => key.startsWith(prefix)).sort(([a], [b]) => (a < b ? -1 : 1));
  }

  put(key, value) {
    this.#values.set(key, value);
    this.#write((store) => store.put(value, key));
  }

  delete(key) {
    if (!this.#values.delete(key)) return;
    this.#write((store) => store.delete(key));
  }

  #write(change) {
    if (!this.#database) return;
    try {
      const transaction = this.#database.transaction(STORE, "readwrite");
      transaction.onerror = transaction.onabort = () => this.#failed(`A draft was not kept: ${transaction.error?.message}`);
      change(transaction.objectStore(STORE));
      transaction.commit(); // so that closing the page right after cannot abort it
    } catch (error) {
      this.#failed(`A draft was not kept: ${error.message}`);
    }
  }
}
