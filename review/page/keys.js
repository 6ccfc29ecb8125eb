/** Commands by key: one listener, layers of bindings, and the help that is made of them. */
import { el, isTextField, openDialog } from "./dom.js";

const NAMES = { " ": "Space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", Delete: "Del" };

/**
 * @typedef {Object} Binding
 * @property {string[]} keys As `nameOf` tells them: "k", "Shift+k", "Ctrl+z", "Enter", " ".
 * @property {string} says What it does, for the help; bindings without it are not listed.
 * @property {(event: KeyboardEvent) => void|boolean} run Returns false to leave the key to the browser.
 * @property {boolean|(() => boolean)} [inText] Whether it also works while somebody writes in a text field.
 */

/** Layers of bindings: the last added is asked first. */
export class Keys {
  #layers = [];

  constructor() {
    document.addEventListener("keydown", (event) => this.#press(event));
    // A button that was clicked gives the focus back, so that Enter and Space stay commands and do not click it again.
    document.addEventListener("click", (event) => {
      const target = event.target instanceof Element ? event.target.closest("button") : null;
      if (target && event.detail > 0 && !target.closest("dialog")) target.blur();
    });
  }

  /**
   * Adds bindings. Returns what removes them.
   * @param {string} title What the help calls them.
   * @param {Binding[]} bindings
   * @param {{modal?: boolean}} options modal: layers below are not asked.
   */
  add(title, bindings, { modal = false } = {}) {
    const layer = { title, bindings, modal };
    this.#layers.push(layer);
    return () => {
      this.#layers = this.#layers.filter((each) => each !== layer);
    };
  }

  #press(event) {
    if (event.defaultPrevented || event.isComposing) return;
    const name = nameOf(event);
    const target = event.target;
    const writing = isTextField(target);
    const pressesButton = (name === "Enter" || name === " ") && target instanceof Element && target.closest("button, a, summary, select");
    const movesControl = name.startsWith("Arrow") && target instanceof Element && target.matches("select, input[type=range]");
    if (pressesButton || movesControl) return;
    for (const layer of [...this.#layers].reverse()) {
      for (const binding of layer.bindings) {
        if (!binding.keys.includes(name)) continue;
        const allowed = typeof binding.inText === "function" ? binding.inText() : binding.inText;
        if (writing && !allowed) continue;
        if (binding.run(event) === false) continue;
        event.preventDefault();
        return;
      }
      if (layer.modal) return;
    }
  }

  /** Shows all keys that work now. */
  help(notes = []) {
    const groups = [...this.#layers].reverse().map((layer) => {
      const rows = layer.bindings
        .filter((binding) => binding.says)
        .map((binding) => [
          el("dt", {}, binding.keys.map((key) => el("kbd", {}, inWords(key)))),
          el("dd", {}, binding.says),
        ]);
      return rows.length && el("section", {}, el("h3", {}, layer.title), el("dl", {}, rows));
    });
    const remove = this.add("", [], { modal: true });
    openDialog("Keys", [el("div", { class: "help" }, groups), ...notes.map((note) => el("p", { class: "quiet" }, note))], {
      wide: true,
      onclose: remove,
    });
  }
}

function inWords(key) {
  return key
    .split(/\+(?=.)/)
    .map((part) => NAMES[part] ?? (part.length === 1 && key.startsWith("Shift+") ? part.toUpperCase() : part))
    .join("+");
}

/** Tells a key press as bindings name it; letters by their place on the keyboard where the layout is not Latin. */
export function nameOf(event) {
  const letter = /^Key([A-Z])$/.exec(event.code);
  let key = event.key;
  if (letter && (event.altKey || (key.length === 1 && !/^[ -~]$/.test(key)))) key = letter[1];
  if (event.altKey && /^Digit\d$/.test(event.code)) key = event.code.at(-1);
  const isLetter = /^[A-Za-z]$/.test(key);
  if (isLetter) key = key.toLowerCase();
  const shift = event.shiftKey && (isLetter || key.length > 1);
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.altKey ? "Alt+" : ""}${shift ? "Shift+" : ""}${key}`;
}
