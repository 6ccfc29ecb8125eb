/** The editor of captions, and of questions with their answers: what stands is accepted, changed or rejected. */
import { button, el } from "./dom.js";

const FIELDS = { caption: [["caption", "Caption"]], qa: [["question", "Question"], ["answer", "Answer"]] };

/** Makes the editor. @returns {import("./edit_actions.js").Editor} */
export function textEditor(task, _session, { changed, save }) {
  const names = FIELDS[task.kind];
  const given = Object.fromEntries(names.map(([name]) => [name, String((task.proposal?.value ?? task.held)?.[name] ?? "").trim()]));
  let rejected = false;

  const fields = new Map(
    names.map(([name]) => [
      name,
      el("textarea", {
        id: `field-${name}`,
        name,
        rows: name === "question" ? 2 : 4,
        maxLength: 10_000,
        spellcheck: true,
        value: given[name],
        oninput: () => {
          rejected = false;
          show();
          changed();
        },
      }),
    ]),
  );
  const state = el("p", { class: "verdict", role: "status" });
  const reject = button("Reject", () => setRejected(!rejected), { key: "r", kind: "toggle danger" });
  const restore = button("Back to the given text", back, { key: "b", kind: "plain" });

  function texts() {
    return Object.fromEntries([...fields].map(([name, field]) => [name, field.value.trim()]));
  }

  function changedText() {
    return names.some(([name]) => texts()[name] !== given[name]);
  }

  function setRejected(now) {
    rejected = now;
    show();
    changed();
  }

  function back() {
    for (const [name, field] of fields) field.value = given[name];
    rejected = false;
    show();
    changed();
  }

  function verdict() {
    if (rejected) return "reject";
    return changedText() ? "edit" : "accept";
  }

  function show() {
    const words = { reject: "Will be rejected", edit: "Will be saved as you wrote it", accept: "Will be accepted as it stands" };
    state.textContent = words[verdict()];
    state.dataset.verdict = verdict();
    reject.setAttribute("aria-pressed", String(rejected));
    restore.disabled = !changedText();
    for (const field of fields.values()) field.classList.toggle("rejected", rejected);
  }

  show();
  return {
    element: el(
      "div",
      { class: "editor text-editor" },
      names.map(([name, label]) => [el("label", { for: `field-${name}` }, label), fields.get(name)]),
      el(
        "p",
        { class: "quiet" },
        task.proposal ? `Proposed by ${task.proposal.by}.` : task.held ? "What the dataset has." : "There is no text yet: write one.",
      ),
      state,
      el("div", { class: "row" }, button("Edit", () => fields.get(names[0][0]).focus(), { key: "e" }), reject, restore),
    ),
    set(value) {
      rejected = value?.verdict === "reject";
      for (const [name, field] of fields) if (typeof value?.[name] === "string") field.value = value[name];
      show();
    },
    value: () => ({ verdict: verdict(), ...texts() }),
    draft: () => ({ verdict: verdict(), ...Object.fromEntries([...fields].map(([name, field]) => [name, field.value])) }),
    problem() {
      const empty = names.find(([name]) => !texts()[name]);
      return rejected || !empty ? null : `The ${empty[0]} is empty: write it, or reject (r).`;
    },
    focus: () => {},
    focused: () => false,
    inText: false,
    bindings: [
      { keys: ["e"], says: "Write in the text; Esc leaves it", run: () => fields.get(names[0][0]).focus() },
      { keys: ["r", "Alt+r"], says: "Reject, or not", run: () => setRejected(!rejected) },
      { keys: ["b"], says: "Back to the given text", run: back },
      { keys: ["Ctrl+Enter"], says: "Save from within the text", run: () => save(), inText: true },
      {
        keys: ["Escape"],
        inText: true,
        run: () => {
          if (!(document.activeElement instanceof HTMLTextAreaElement)) return false;
          document.activeElement.blur();
        },
      },
    ],
  };
}
