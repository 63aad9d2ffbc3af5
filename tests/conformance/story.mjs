// A month with the unmodified @commet/node, told against $COMMET_BASE_URL.
// Prints one JSON object: what each step was answered. The test beside it says what is right.
import { Commet } from "@commet/node";

import { clockAt, commet, pay, raw, refused, tell, told } from "./telling.mjs";

await catalogue();
await customers();
const subscription = await subscribe();
await freePlan();
await meter();
await refusals();
await renewal();
await cancellation();
await keys();
console.log(JSON.stringify(told));

async function catalogue() {
  await tell("featureBoolean", commet.features.create({ name: "Single sign-on", code: "sso", type: "boolean" }));
  await tell(
    "featureUsage",
    commet.features.create({ name: "API calls", code: "api_calls", type: "usage", unitName: "call" }),
  );
  await tell(
    "featureOutsidePlan",
    commet.features.create({ name: "Emails sent", code: "emails_sent", type: "usage" }),
  );
  await refused("featureTwice", commet.features.create({ name: "Again", code: "api_calls", type: "usage" }));
  await tell("featureUpdated", commet.features.update({ code: "api_calls", description: "One per request" }));
  await tell("feature", commet.features.get({ code: "api_calls" }));
  await tell("features", commet.features.list());

  const made = await tell(
    "planCreated",
    commet.plans.create({ name: "Pro", code: "pro", consumptionModel: "metered", isPublic: true }),
  );
  const id = made.data.id;
  await tell(
    "price",
    commet.plans.addPrice({ id, billingInterval: "monthly", price: 2900, isDefault: true }),
  );
  await tell(
    "planFeatureBoolean",
    commet.plans.addFeature({ id, featureId: told.featureBoolean.data.id, enabled: true }),
  );
  await tell(
    "planFeatureUsage",
    commet.plans.addFeature({
      id,
      featureId: told.featureUsage.data.id,
      includedAmount: 1000,
      overage: { enabled: true, unitPrice: 100 },
    }),
  );
  await tell("planByCode", commet.plans.get({ id: "pro" }));
  await tell("planById", commet.plans.get({ id }));
  await refused("planUnknown", commet.plans.get({ id: "gold" }));
  await tell("planHidden", commet.plans.setVisibility({ id, isPublic: false }));
  await tell("plansWhileHidden", commet.plans.list());
  await tell("plansWithPrivate", commet.plans.list({ includePrivate: "true" }));
  await tell("planShown", commet.plans.setVisibility({ id, isPublic: true }));
}

async function customers() {
  const ada = { email: "ada@example.com", id: "user_123", fullName: "Ada Lovelace" };
  const made = await tell("customer", commet.customers.create(ada));
  await tell("customerAgain", commet.customers.create({ ...ada, fullName: "Somebody Else" }));
  await tell("customerById", commet.customers.get({ id: made.data.id }));
  await tell("customerByOwnId", commet.customers.get({ id: "user_123" }));
  await tell(
    "customerUpdated",
    commet.customers.update({ id: made.data.id, fullName: "Countess of Lovelace" }),
  );
  await refused("customerUnknown", commet.customers.get({ id: "user_999" }));
  await tell(
    "customerBatch",
    commet.customers.createBatch({
      customers: [
        { email: "brian@example.com", id: "user_201" },
        { email: `${"x".repeat(200)}@example.com`, id: "user_202" },
        { email: "grace@example.com", id: "user_203" },
      ],
    }),
  );
  const once = { idempotencyKey: "signup-204" };
  await tell("customerOnce", commet.customers.create({ email: "alan@example.com" }, once));
  await tell("customerOnceRetried", commet.customers.create({ email: "alan@example.com" }, once));
  await refused("customerOnceChanged", commet.customers.create({ email: "other@example.com" }, once));

  const pages = [];
  let cursor;
  do {
    const page = await commet.customers.list({ limit: 2, cursor });
    pages.push(page);
    cursor = page.nextCursor;
  } while (cursor && pages.length < 10);
  told.customerPages = pages;
  await tell("customersFiltered", commet.customers.list({ externalId: "user_203" }));
}

async function subscribe() {
  await tell("activeBeforeAny", commet.subscriptions.getActive({ customerId: "user_203" }));
  const choice = { customerId: "user_123", planCode: "pro" };
  const pending = await tell("pending", commet.subscriptions.create(choice));
  await tell("pendingAgain", commet.subscriptions.create(choice));
  await refused("trackedUnpaid", commet.usage.track({ customerId: "user_123", feature: "api_calls", value: 1 }));
  told.paid = await pay(pending.data.checkoutUrl);
  await tell("active", commet.subscriptions.getActive({ customerId: "user_123" }));
  await tell("subscription", commet.subscriptions.get({ id: pending.data.id }));
  await tell("subscriptions", commet.subscriptions.list({ customerId: "user_123" }));
  await refused("subscribedTwice", commet.subscriptions.create(choice));
  await tell("invoicesAtStart", commet.invoices.list({ customerId: "user_123" }));
  await tell("transactionsAtStart", commet.transactions.list({ customerEmail: "ada@example.com" }));
  return pending.data;
}

async function freePlan() {
  const made = await commet.plans.create({
    name: "Free",
    code: "free",
    consumptionModel: "metered",
    isPublic: true,
    isFree: true,
  });
  await commet.plans.addFeature({
    id: made.data.id,
    featureId: told.featureUsage.data.id,
    includedAmount: 10,
  });
  await tell("freeSubscription", commet.subscriptions.create({ customerId: "user_201", planCode: "free" }));
  const use = { customerId: "user_201", feature: "api_calls", timestamp: "2026-01-15T10:05:00.000Z" };
  await commet.usage.track({ ...use, value: 8 });
  await refused("freeBeyondLimit", commet.usage.track({ ...use, value: 3, idempotencyKey: "free_1" }));
  await tell(
    "freeCheckBeyondLimit",
    commet.usage.check({ customerId: "user_201", featureCode: "api_calls", quantity: 3 }),
  );
  // A refused event leaves its key free, so the same key may carry what does fit.
  await tell("freeUpToLimit", commet.usage.track({ ...use, value: 2, idempotencyKey: "free_1" }));
}

async function meter() {
  const event = {
    customerId: "user_123",
    feature: "api_calls",
    value: 700,
    idempotencyKey: "req_1",
    timestamp: "2026-01-15T10:30:00.000Z",
    properties: { endpoint: "/v1/convert" },
  };
  await tell("tracked", commet.usage.track(event));
  await refused("trackedTwice", commet.usage.track(event));
  await refused("trackedTwiceChanged", commet.usage.track({ ...event, value: 9 }));
  await tell(
    "check",
    commet.usage.check({ customerId: "user_123", featureCode: "api_calls", quantity: 100 }),
  );
  await tell("accessWithin", commet.featureAccess.get({ code: "api_calls", customerId: "user_123" }));
  await tell("canUseWithin", commet.featureAccess.canUse({ code: "api_calls", customerId: "user_123" }));

  const second = { ...event, value: 500, idempotencyKey: "req_2", timestamp: "2026-01-15T10:31:00.000Z" };
  await tell("trackedOnce", commet.usage.track(second, { idempotencyKey: "operation-2" }));
  await tell("trackedOnceRetried", commet.usage.track(second, { idempotencyKey: "operation-2" }));
  await tell(
    "trackedByPublicId",
    commet.usage.track({
      customerId: told.customer.data.id,
      feature: "api_calls",
      timestamp: "2026-01-15T10:32:00.000Z",
    }),
  );
  await tell(
    "set",
    commet.usage.set({ customerId: "user_123", feature: "api_calls", value: 1250, reason: "recount" }),
  );
  await tell("accessBeyond", commet.featureAccess.get({ code: "api_calls", customerId: "user_123" }));
  await tell("canUseBeyond", commet.featureAccess.canUse({ code: "api_calls", customerId: "user_123" }));
  await tell("accessList", commet.featureAccess.list({ customerId: "user_123" }));
}

async function refusals() {
  const event = { customerId: "user_123", feature: "api_calls", value: 1 };
  await refused("valueNegative", commet.usage.track({ ...event, value: -1 }));
  await refused("featureMalformed", commet.usage.track({ ...event, feature: "API calls!" }));
  await refused("featureUnknown", commet.usage.track({ ...event, feature: "storage_gb" }));
  await refused("featureNotInPlan", commet.usage.track({ ...event, feature: "emails_sent" }));
  await refused("trackedForNobody", commet.usage.track({ ...event, customerId: "user_999" }));
  await refused("keyUnknown", new Commet({ apiKey: "ck_sandbox_nobodys" }).features.list());
}

async function renewal() {
  await tell("clockBefore", commet.testClock.get());
  await tell("advanced", commet.testClock.advance({ advanceDays: 31 }));
  told.clockAfter = await clockAt("2026-02-15T10:00:00.000Z");
  await refused("clockBackwards", commet.testClock.advance({ frozenTime: "2026-02-01T00:00:00.000Z" }));

  await tell("invoices", commet.invoices.list({ customerId: "user_123" }));
  await tell("invoicesOfSubscription", commet.invoices.list({ subscriptionId: subscription.id }));
  await tell("invoicesFirstPage", commet.invoices.list({ customerId: "user_123", limit: 1 }));
  await tell("invoicesOfFreeCustomer", commet.invoices.list({ customerId: "user_201" }));
  const renewed = told.invoices.data.find(({ total }) => total !== 2900);
  await tell("renewalInvoice", commet.invoices.get({ id: renewed?.id }));
  await refused("invoiceUnknown", commet.invoices.get({ id: "inv_nothing" }));
  const overage = told.renewalInvoice.data.lineItems.find(({ lineType }) => lineType === "feature_overage");
  told.eventsOfLine = await raw(`/api/v1/invoices/${renewed.id}/lines/${overage?.id}/events`);
  await tell("transactions", commet.transactions.list({ customerEmail: "ada@example.com" }));
  await tell("renewed", commet.subscriptions.getActive({ customerId: "user_123" }));
  await tell("accessAfterRenewal", commet.featureAccess.get({ code: "api_calls", customerId: "user_123" }));
}

async function cancellation() {
  const { id } = subscription;
  await tell("canceled", commet.subscriptions.cancel({ id, reason: "too_expensive" }));
  await refused("canceledTwice", commet.subscriptions.cancel({ id }));
  await tell("uncanceled", commet.subscriptions.uncancel({ id }));
  await refused("uncanceledTwice", commet.subscriptions.uncancel({ id }));
}

async function keys() {
  const made = await tell("keyCreated", commet.apiKeys.create({ name: "second" }));
  await tell("keys", commet.apiKeys.list());
  const second = new Commet({ apiKey: made.data.apiKey });
  await tell("plansBySecondKey", second.plans.list());
  await tell("keyDeleted", commet.apiKeys.delete({ id: made.data.id }));
  await refused("plansByDeletedKey", second.plans.list());
}
