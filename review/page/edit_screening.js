/** The editor of a screening decision: keep, or drop with a reason. */
import { button, el, fill } from "./dom.js";

/** Makes the editor. @returns {import("./edit_actions.js").Editor} */
export function screeningEditor(_task, session, { changed, save }) {
  let value = null;
  const element = el("div", { class: "editor screening-editor" });

  function choose(next, { go = false } = {}) {
    value = next;
    show();
    changed();
    if (go) save();
  }

  function show() {
    fill(
      element,
      el("div", { class: "row" }, button("Keep", () => choose({ keep: true }), { key: "k", kind: `toggle keep${value?.keep ? " on" : ""}` })),
      el("p", { class: "quiet" }, "Drop, because of:"),
      el(
        "div",
        { class: "row" },
        session.reasons.map((reason, index) =>
          button(reason, () => choose({ keep: false, reason }), { key: String(index + 1), kind: `toggle danger${value?.reason === reason && !value.keep ? " on" : ""}` }),
        ),
      ),
    );
  }

  show();
  return {
    element,
    set(next) {
      value = next && typeof next.keep === "boolean" ? next : null;
      show();
    },
    value: () => value,
    draft: () => value ?? {},
    problem: () => (value ? null : "Keep (k) or drop (1 to 6)?"),
    focus: () => {},
    focused: () => false,
    inText: false,
    bindings: [
      { keys: ["k"], says: "Keep", run: () => choose({ keep: true }) },
      ...session.reasons.map((reason, index) => ({ keys: [String(index + 1)], says: `Drop: ${reason}`, run: () => choose({ keep: false, reason }) })),
    ],
  };
}

/** Says a decision in words. */
export function screeningInWords(value) {
  return value.keep ? "keep" : `drop${value.reason ? `: ${value.reason}` : ""}`;
}
