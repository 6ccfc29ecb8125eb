/** What a view shows of an item whose lease ran out. */
import { Unreachable, renew } from "./api.js";
import { button, el } from "./dom.js";

/**
 * Makes the banner: the item can be taken again, or left.
 * @param {Object} task Gets its new lease.
 * @param {{again: () => void, goOn: () => void, say: Function}} actions
 */
export function leaseBanner(task, { again, goOn, say }) {
  const take = async () => {
    try {
      await renew(task);
      again();
      say("The item is yours again.");
    } catch (error) {
      say(error instanceof Unreachable ? "The server does not answer: try again." : error.words, { strong: true });
    }
  };
  return el(
    "div",
    { class: "banner", role: "alert" },
    el("p", {}, "The time for this item ran out, so others may take it. What you entered is kept."),
    el("div", { class: "row" }, button("Take it again", take, { kind: "primary" }), button("Go on", goOn, { kind: "plain" })),
  );
}
