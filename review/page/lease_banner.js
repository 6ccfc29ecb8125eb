/** What a view shows of an item whose lease ran out. */
import { Refused, post } from "./api.js";
import { button, el } from "./dom.js";

/**
 * Makes the banner: the item can be taken again, or left.
 * @param {Object} task Gets its new lease.
 * @param {{again: () => void, goOn: () => void, say: Function}} actions
 */
export function leaseBanner(task, { again, goOn, say }) {
  const take = async () => {
    try {
      const answer = await post("/api/open", { task_id: task.task_id });
      task.until = answer.task.until;
      task.expired = false;
      again();
      say("The item is yours again.");
    } catch (error) {
      say(error instanceof Refused ? error.words : "The server does not answer: try again.", { strong: true });
    }
  };
  return el(
    "div",
    { class: "banner", role: "alert" },
    el("p", {}, "The time for this item ran out, so others may take it. What you entered is kept."),
    el("div", { class: "row" }, button("Take it again", take, { kind: "primary" }), button("Go on", goOn, { kind: "plain" })),
  );
}
