/** Requests to the server that this page came from, and to no other. */

/** The server answered, and refused. */
export class Refused extends Error {
  constructor(status, answer) {
    super(answer?.error ?? `the server answered ${status}`);
    this.status = status;
    this.fix = answer?.fix ?? "";
  }

  /** What is wrong and what to do, as one text. */
  get words() {
    return this.fix ? `${this.message}: ${this.fix}` : this.message;
  }
}

/** No answer came: the network or the server is away, or it could not answer now. */
export class Unreachable extends Error {}

// How far this device's clock is from the server's, in milliseconds; leases end by the server's clock.
let ahead = 0;

/** Returns the server's time in milliseconds. */
export function serverTime() {
  return Date.now() - ahead;
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    throw new Unreachable(error.message);
  }
  const date = Date.parse(response.headers.get("Date") ?? "");
  if (!Number.isNaN(date)) ahead = Date.now() - date;
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (response.ok) throw new Unreachable("the answer was cut off");
  }
  if (response.ok) return answer;
  if (response.status >= 500 || response.status === 429) throw new Unreachable(new Refused(response.status, answer).words);
  throw new Refused(response.status, answer);
}

/** Reads from the server. @throws {Refused|Unreachable} */
export function get(path) {
  return request(path, { method: "GET" });
}

/** Sends to the server. @throws {Refused|Unreachable} */
export function post(path, body) {
  return request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Microg": "review" },
    body: JSON.stringify(body),
  });
}

/** Leases an item of this annotator again, and notes in the task until when. @throws {Refused|Unreachable} */
export async function renew(task) {
  const answer = await post("/api/renew", { task_ids: [task.task_id] });
  if (answer.lost.includes(task.task_id)) {
    throw new Refused(409, { error: "somebody else has this item now, or it is done", fix: "go on with another one" });
  }
  task.until = answer.until;
  task.expired = false;
}

/** Returns a name for a judgement that no other judgement has: 32 hexadecimal digits. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
