/** Finding actions while somebody types: by id, name, group and definition, with letters left out or wrong. */

const MOST = 60; // results shown

/** Returns the actions that fit what was typed, best first; all of them, by id, for nothing typed. */
export function search(actions, typed) {
  const words = plain(typed).split(" ").filter(Boolean);
  if (!words.length) return [...actions];
  return actions
    .map((action) => ({ action, score: scoreOf(action, words) }))
    .filter(({ score }) => score > 0)
    .sort((a, b) => b.score - a.score || a.action.id - b.action.id)
    .slice(0, MOST)
    .map(({ action }) => action);
}

function plain(text) {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim();
}

function scoreOf(action, words) {
  const name = plain(action.name);
  const others = [[plain(action.group), 25], [plain(action.definition ?? ""), 15], [plain(action.note ?? ""), 10]];
  let total = 0;
  for (const word of words) {
    const score = Math.max(
      String(action.id) === word ? 200 : String(action.id).startsWith(word) ? 60 : 0,
      inName(name, word),
      ...others.map(([text, worth]) => (startsAWord(text, word) ? worth : text.includes(word) && word.length > 2 ? worth / 2 : 0)),
    );
    if (!score) return 0;
    total += score;
  }
  return total;
}

function startsAWord(text, word) {
  return text.startsWith(word) || text.includes(` ${word}`);
}

function inName(name, word) {
  if (name === word) return 150;
  if (name.startsWith(word)) return 120 - name.length / 100;
  if (startsAWord(name, word)) return 100 - name.length / 100;
  if (name.includes(word)) return 70 - name.length / 100;
  if (word.length < 2) return 0;
  const parts = name.split(" ");
  if (word.length > 3 && parts.some((part) => isAlmost(part.slice(0, word.length + 1), word))) return 50;
  // Letters left out: within one word first, then the first letters of several.
  for (const part of parts) if (part[0] === word[0] && holdsInOrder(part, word)) return 45 - part.length / 10;
  const initials = parts.map((part) => part[0]).join("");
  if (initials.startsWith(word)) return 40;
  return word.length > 2 && holdsInOrder(name, word) && name[0] === word[0] ? 20 - name.length / 10 : 0;
}

/** Tells whether the letters of `word` stand in `text` in this order. */
function holdsInOrder(text, word) {
  let from = 0;
  for (const letter of word) {
    from = text.indexOf(letter, from) + 1;
    if (!from) return false;
  }
  return true;
}

/** Tells whether the beginning of `text` is `word` but for one letter: wrong, missing, too many, or two swapped. */
function isAlmost(text, word) {
  let same = 0;
  while (same < word.length && text[same] === word[same]) same += 1;
  const rest = word.slice(same);
  const after = (given, typed) => given.startsWith(typed);
  return (
    after(text.slice(same + 1), rest.slice(1)) ||
    after(text.slice(same), rest.slice(1)) ||
    after(text.slice(same + 1), rest) ||
    (rest.length > 1 && text[same] === rest[1] && text[same + 1] === rest[0] && after(text.slice(same + 2), rest.slice(2)))
  );
}
