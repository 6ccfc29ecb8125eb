/** The editor of a person's actions: chosen ones as chips, proposals, and the vocabulary to search in. */
import { button, el, fill } from "./dom.js";
import { search } from "./search.js";

/**
 * @typedef {Object} Editor
 * @property {HTMLElement} element
 * @property {() => Object} value What was judged, as it is saved.
 * @property {(value: Object) => void} set Shows a value.
 * @property {() => string|null} problem Why the value cannot be saved.
 * @property {import("./keys.js").Binding[]} bindings
 * @property {() => void} focus
 */

/** Makes the editor. `changed` is called after each change by the user. @returns {Editor} */
export function actionsEditor(task, session, { changed, say }) {
  const { actions } = session.vocabulary;
  const byId = new Map(actions.map((action) => [action.id, action]));
  const most = session.max_actions;
  let chosen = [];
  let special = null; // "none" of the vocabulary, or "cannot" tell
  let found = actions;
  let mark = 0;

  const chips = el("div", { class: "chips", role: "group", "aria-label": "Actions chosen" });
  const offers = el("div", { class: "offers" });
  const field = el("input", {
    type: "search",
    role: "combobox",
    "aria-label": "Search actions",
    "aria-expanded": "true",
    "aria-controls": "action-list",
    "aria-autocomplete": "list",
    autocomplete: "off",
    spellcheck: false,
    placeholder: "Search actions ( / )",
  });
  const list = el("div", { id: "action-list", class: "action-list", role: "listbox", "aria-label": "Actions", "aria-multiselectable": "true" });
  const about = el("div", { class: "about" });
  const none = button("None fits", () => setSpecial("none"), { key: "0", kind: "toggle" });
  const cannot = button("Cannot tell", () => setSpecial("cannot"), { key: "x", kind: "toggle" });
  const copy = button("Copy previous", copyPrevious, { key: "c", disabled: !task.previous });

  function nameOf(id) {
    return byId.get(id)?.name ?? `action ${id}, no longer in the vocabulary`;
  }

  function toggle(id) {
    if (chosen.includes(id)) {
      chosen = chosen.filter((each) => each !== id);
    } else if (chosen.length >= most) {
      say(`A person has at most ${most} actions: take one away first.`, { strong: true });
      return false;
    } else if (byId.has(id)) {
      chosen = [...chosen, id];
      special = null;
    }
    show();
    changed();
    return true;
  }

  function setSpecial(which) {
    special = special === which ? null : which;
    if (special) chosen = [];
    show();
    changed();
  }

  function copyPrevious() {
    if (!task.previous) return say("There is no previous clip of this source that you judged.");
    set(task.previous);
    changed();
  }

  function take(ids) {
    const fresh = ids.filter((id) => byId.has(id) && !chosen.includes(id));
    for (const id of fresh) if (!toggle(id)) return;
  }

  function offer(title, key, ids) {
    const known = (ids ?? []).filter((id) => byId.has(id));
    if (!known.length) return null;
    return el(
      "div",
      { class: "offer" },
      el("span", { class: "quiet" }, title),
      known.map((id) =>
        el(
          "button",
          { type: "button", class: `chip offered${chosen.includes(id) ? " taken" : ""}`, "aria-pressed": String(chosen.includes(id)), onclick: () => toggle(id) },
          `${chosen.includes(id) ? "✓" : "+"} ${nameOf(id)}`,
        ),
      ),
      known.length > 1 || key ? button("All", () => take(known), { key, kind: "plain small" }) : null,
    );
  }

  function show() {
    fill(
      chips,
      chosen.map((id) =>
        el(
          "button",
          { type: "button", class: "chip chosen", title: "Take away", "aria-label": `Take away ${nameOf(id)}`, onclick: () => toggle(id) },
          el("span", {}, nameOf(id)),
          el("span", { "aria-hidden": "true" }, "×"),
        ),
      ),
      special === "none" && el("span", { class: "chip special" }, "None of the vocabulary's actions"),
      special === "cannot" && el("span", { class: "chip special" }, "Cannot tell"),
      !chosen.length && !special && el("span", { class: "quiet" }, `No action yet (up to ${most})`),
    );
    fill(
      offers,
      offer(`Proposed${task.proposal?.by ? ` by ${task.proposal.by}` : ""}:`, "p", task.proposal?.value?.actions),
      offer("In the dataset:", "h", task.held?.actions),
    );
    none.setAttribute("aria-pressed", String(special === "none"));
    cannot.setAttribute("aria-pressed", String(special === "cannot"));
    showList();
  }

  function showList() {
    found = search(actions, field.value);
    mark = Math.min(mark, Math.max(0, found.length - 1));
    fill(
      list,
      found.map((action, index) =>
        el(
          "div",
          {
            role: "option",
            id: `action-${action.id}`,
            class: `option${index === mark ? " marked" : ""}${chosen.includes(action.id) ? " taken" : ""}`,
            "aria-selected": String(chosen.includes(action.id)),
            onclick: () => {
              mark = index;
              toggle(action.id);
            },
            onpointerenter: (event) => event.pointerType === "mouse" && describe(action),
          },
          el("span", { class: "number" }, String(action.id)),
          el("span", { class: "name" }, action.name),
          el("span", { class: "group" }, chosen.includes(action.id) ? "✓" : inWords(action.group)),
        ),
      ),
      !found.length && el("p", { class: "quiet" }, "No action fits. Try its id, its group, or a word of its definition."),
    );
    showMark();
  }

  function showMark() {
    [...list.children].forEach((node, index) => node.classList.toggle("marked", index === mark));
    const action = found[mark];
    if (action) field.setAttribute("aria-activedescendant", `action-${action.id}`);
    else field.removeAttribute("aria-activedescendant");
    const node = list.children[mark];
    if (node && action) {
      const [above, below] = [node.offsetTop - list.offsetTop, node.offsetTop - list.offsetTop + node.offsetHeight];
      if (above < list.scrollTop) list.scrollTop = above;
      else if (below > list.scrollTop + list.clientHeight) list.scrollTop = below - list.clientHeight;
    }
    describe(action);
  }

  function describe(action) {
    fill(
      about,
      action && [
        el("p", { class: "title" }, `${action.id} ${action.name}`, action.group && el("span", { class: "quiet" }, `  ${inWords(action.group)}`)),
        el("p", {}, action.definition || el("span", { class: "quiet" }, "The vocabulary gives no definition.")),
        action.note && el("p", { class: "note" }, action.note),
      ],
    );
  }

  function move(by) {
    if (!found.length) return;
    mark = (mark + by + found.length) % found.length;
    showMark();
  }

  function set(value) {
    chosen = (value?.actions ?? []).filter((id) => byId.has(id)).slice(0, most);
    special = value?.cannot_tell ? "cannot" : value?.none || (value && !chosen.length && !value.open) ? "none" : null;
    show();
  }

  field.addEventListener("focus", () => {
    // On a small screen the list would lie below its end.
    if (innerWidth <= 1000) field.scrollIntoView({ block: "start" });
  });
  field.addEventListener("input", () => {
    mark = 0;
    showList();
  });

  const empty = () => document.activeElement === field && !field.value;
  const typed = () => document.activeElement === field && Boolean(field.value.trim());
  const element = el(
    "div",
    { class: "editor actions-editor" },
    chips,
    offers,
    el("div", { class: "row" }, copy, cannot, none),
    field,
    list,
    about,
  );
  show();

  return {
    element,
    set,
    value() {
      if (special === "cannot") return { actions: [], cannot_tell: true };
      return { actions: [...chosen].sort((a, b) => a - b) };
    },
    /** What a draft keeps: also that nothing was said yet. */
    draft: () => ({ actions: chosen, cannot_tell: special === "cannot", none: special === "none", open: !special && !chosen.length }),
    problem: () => (chosen.length || special ? null : "Choose at least one action, or say that you cannot tell (x), or that none fits (0)."),
    focus: () => field.focus({ preventScroll: true }),
    focused: () => document.activeElement === field,
    inText: empty,
    bindings: [
      { keys: ["/", "s"], says: "Search the actions; Enter takes the marked one, Esc leaves the field", run: () => field.focus() },
      {
        keys: ["Enter"],
        inText: typed,
        run: () => {
          if (!typed()) return false;
          if (found[mark] && toggle(found[mark].id)) {
            field.value = "";
            mark = 0;
            showList();
          }
        },
      },
      { keys: ["ArrowDown"], says: "Mark the next action of the list", run: () => move(1), inText: () => document.activeElement === field },
      { keys: ["ArrowUp"], says: "Mark the one before", run: () => move(-1), inText: () => document.activeElement === field },
      { keys: ["t"], says: "Take the marked action, or take it away", run: () => void (found[mark] && toggle(found[mark].id)) },
      {
        keys: ["Escape"],
        inText: () => document.activeElement === field,
        run: () => {
          if (document.activeElement !== field) return false;
          if (!field.value) field.blur();
          field.value = "";
          mark = 0;
          showList();
        },
      },
      { keys: ["Backspace"], says: "Take away the last action", run: () => void (chosen.length && toggle(chosen.at(-1))), inText: empty },
      { keys: ["c"], says: "Copy from the previous clip (Alt+C while searching)", run: copyPrevious },
      { keys: ["x"], says: "Cannot tell (Alt+X while searching)", run: () => setSpecial("cannot") },
      { keys: ["Alt+c"], run: copyPrevious, inText: true },
      { keys: ["Alt+x"], run: () => setSpecial("cannot"), inText: true },
      { keys: ["0"], says: "None of the vocabulary's actions", run: () => setSpecial("none") },
      { keys: ["p"], says: "Take all proposed actions", run: () => take(task.proposal?.value?.actions ?? []) },
      { keys: ["h"], says: "Take the actions that the dataset has", run: () => take(task.held?.actions ?? []) },
    ],
  };
}

function inWords(group) {
  return group.replaceAll("_", " ").toLowerCase();
}

/** Says a judgement of actions in words. */
export function actionsInWords(value, session) {
  const names = new Map(session.vocabulary.actions.map((action) => [action.id, action.name]));
  if (value.cannot_tell) return ["cannot tell"];
  if (!value.actions?.length) return ["none of the vocabulary's actions"];
  return value.actions.map((id) => names.get(id) ?? `action ${id}`);
}
