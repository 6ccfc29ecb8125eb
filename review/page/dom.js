/** Elements of the page. What data say goes in as text only: no module of the page ever sets HTML. */

/**
 * Makes an element.
 * @param {string} tag
 * @param {Object} properties `class`, `data` (a dataset), `onclick` and other listeners, properties or attributes;
 *   undefined, null and false leave one out.
 * @param {...(Node|string|null|false|Array)} children Strings become text.
 */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Makes a button that shows the key that does the same. */
export function button(label, run, { key, kind = "", title, disabled = false, data } = {}) {
  return el(
    "button",
    { type: "button", class: `button ${kind}`, title, disabled, data, onclick: run },
    el("span", {}, label),
    key && el("kbd", { "aria-hidden": "true" }, key),
  );
}

const FOCUSABLE = "button:not(:disabled), input, textarea, select";

/** Replaces what an element contains; the keyboard's focus stays at its place there. */
export function fill(node, ...children) {
  const active = document.activeElement;
  const place = active !== node && node.contains(active) ? [...node.querySelectorAll(FOCUSABLE)].indexOf(active) : -1;
  node.replaceChildren(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  if (place >= 0) {
    const now = [...node.querySelectorAll(FOCUSABLE)];
    now[Math.min(place, now.length - 1)]?.focus({ preventScroll: true });
  }
  return node;
}

/**
 * Opens a dialog over the page; Escape closes it. Returns it; `dialog.close()` ends it and gives the focus back.
 * @param {string} title
 * @param {Node[]} content
 * @param {{wide?: boolean, onclose?: Function}} options
 */
export function openDialog(title, content, { wide = false, onclose } = {}) {
  const before = document.activeElement;
  const heading = el("h2", {}, title);
  const dialog = el(
    "dialog",
    { class: wide ? "wide" : "", "aria-label": title },
    el("div", { class: "row spread" }, heading, button("Close", () => dialog.close(), { key: "Esc", kind: "plain" })),
    ...content,
  );
  // The browser's event comes a moment after closing: a key pressed in between would still be the dialog's.
  const end = () => {
    if (!dialog.isConnected) return;
    dialog.remove();
    if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
    onclose?.();
  };
  dialog.close = () => {
    HTMLDialogElement.prototype.close.call(dialog);
    end();
  };
  dialog.addEventListener("close", end); // Escape
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Tells whether the user is writing text in an element, so that letters are no commands there. */
export function isTextField(node) {
  return node instanceof HTMLTextAreaElement || (node instanceof HTMLInputElement && ["text", "search", "password"].includes(node.type));
}

/** Says a count with its noun: `1 clip`, `3 clips`. */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
