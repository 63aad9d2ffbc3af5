// How a story is told with @commet/node: what each step was answered is noted under its name.
import { Commet } from "@commet/node";

const base = process.env.COMMET_BASE_URL;
const apiKey = process.env.COMMET_API_KEY;
export const commet = new Commet({ apiKey });
export const told = {};

export async function tell(step, promise) {
  try {
    told[step] = await promise;
  } catch (error) {
    throw new Error(`${step}: ${JSON.stringify(facts(error))}`, { cause: error });
  }
  return told[step];
}

export async function refused(step, promise) {
  told[step] = await promise.then((answer) => ({ answered: answer }), facts);
}

function facts(error) {
  const { name, message, code, statusCode, type, param, details, validationErrors } = error;
  return { name, message, code, statusCode, type, param, details, validationErrors };
}

// The sandbox card form, filled in as a browser would.
export async function pay(checkoutUrl) {
  const answer = await fetch(checkoutUrl, {
    method: "POST",
    redirect: "manual",
    body: new URLSearchParams({ cardNumber: "4242424242424242", expiry: "12/34", cvc: "123" }),
  });
  return answer.status;
}

export async function raw(path) {
  const answer = await fetch(base + path, { headers: { "x-api-key": apiKey } });
  return { status: answer.status, body: await answer.json() };
}

export async function clockAt(target) {
  for (let tries = 0; tries < 60; tries++) {
    const clock = await commet.testClock.get();
    if (clock.data.now >= target) return clock;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  throw new Error(`the clock never reached ${target}`);
}
