// Prepaid plans with the unmodified @commet/node, told against $COMMET_BASE_URL as story.mjs is.
import { clockAt, commet, pay, refused, tell, told } from "./telling.mjs";

const timestamp = "2026-01-15T10:05:00.000Z"; // else this SDK stamps the wall's time
const CALLS = { feature: "api_calls", timestamp };
const TOKENS = { feature: "chat", model: "gpt-4o", inputTokens: 1000, outputTokens: 500, timestamp };

await offer();
await credits(await subscribe("ada", "credits"));
await balance(await subscribe("grace", "balance"));
await commet.testClock.advance({ advanceDays: 31 });
await clockAt("2026-02-15T10:00:00.000Z");
for (const who of ["ada", "grace"]) {
  await tell(`${who}Renewed`, commet.subscriptions.getActive({ customerId: who }));
  await tell(`${who}Invoices`, commet.invoices.list({ customerId: who }));
}
console.log(JSON.stringify(told));

async function offer() {
  const calls = await commet.features.create({ name: "API calls", code: "api_calls", type: "usage" });
  const chat = await commet.features.create({ name: "Chat", code: "chat", type: "usage" });
  const sold = { billingInterval: "monthly", price: 2900 };

  let id = (await commet.plans.create({ name: "Credits", code: "credits", consumptionModel: "credits" })).data.id;
  await tell("creditsPrice", commet.plans.addPrice({ id, ...sold, includedCredits: 100 }));
  await tell("creditsFeature", commet.plans.addFeature({ id, featureId: calls.data.id, creditsPerUnit: 10 }));

  const money = { name: "Balance", code: "balance", consumptionModel: "balance", blockOnExhaustion: true };
  id = (await commet.plans.create(money)).data.id;
  await tell("balancePrice", commet.plans.addPrice({ id, ...sold, includedBalance: 50000 }));
  const overage = { enabled: true, unitPrice: 5000 };
  await tell("balanceFeature", commet.plans.addFeature({ id, featureId: calls.data.id, overage }));
  const tokens = { featureId: chat.data.id, pricingMode: "ai_model", margin: 2000 };
  await tell("balanceAiFeature", commet.plans.addFeature({ id, ...tokens }));
}

async function subscribe(who, planCode) {
  await commet.customers.create({ email: `${who}@example.com`, id: who });
  const pending = await commet.subscriptions.create({ customerId: who, planCode });
  await pay(pending.data.checkoutUrl);
  return (await tell(`${who}Begins`, commet.subscriptions.getActive({ customerId: who }))).data;
}

async function credits({ id }) {
  const whose = { customerId: "ada" };
  const ask = { ...whose, featureCode: "api_calls" };
  await tell("adaTracked", commet.usage.track({ ...whose, ...CALLS, value: 2.5 }));
  await tell("adaCheck", commet.usage.check({ ...ask, quantity: 7 }));
  await tell("adaCheckBeyond", commet.usage.check({ ...ask, quantity: 8 }));
  await refused("adaBeyond", commet.usage.track({ ...whose, ...CALLS, value: 8 }));
  await tell("adaAccess", commet.featureAccess.get({ code: "api_calls", ...whose }));
  await tell("adaCanUse", commet.featureAccess.canUse({ code: "api_calls", ...whose }));

  const pack = await tell("pack", commet.creditPacks.create({ name: "Fifty", credits: 50, price: 900 }));
  await tell("packs", commet.creditPacks.list());
  await tell("bought", commet.subscriptions.purchaseCredits({ id, creditPackId: pack.data.id }));
  await tell("given", commet.subscriptions.adjustBalance({ id, amount: 15, reason: "sorry", type: "credits" }));
  await tell("packDeleted", commet.creditPacks.delete({ id: pack.data.id }));
  await tell("adaFitsNow", commet.usage.track({ ...whose, ...CALLS, value: 8 }));
  await tell("adaAfter", commet.subscriptions.get({ id }));
}

async function balance({ id }) {
  const whose = { customerId: "grace" };
  await tell("graceTracked", commet.usage.track({ ...whose, ...CALLS, value: 4 }));
  await tell("graceTokens", commet.usage.track({ ...whose, ...TOKENS }));
  await tell("graceCheck", commet.usage.check({ ...whose, featureCode: "api_calls", quantity: 2 }));
  await tell("graceCheckBeyond", commet.usage.check({ ...whose, featureCode: "api_calls", quantity: 50 }));
  await refused("graceBeyond", commet.usage.track({ ...whose, ...CALLS, value: 50 }));
  await tell("graceAccess", commet.featureAccess.get({ code: "api_calls", ...whose }));
  await tell("toppedUp", commet.subscriptions.topupBalance({ id, amount: 2500 }));
  await tell("taken", commet.subscriptions.adjustBalance({ id, amount: -5000, reason: "a mistake" }));
  await tell("graceFitsNow", commet.usage.track({ ...whose, ...CALLS, value: 50 }));
  await tell("graceAfter", commet.subscriptions.get({ id }));
}
