// Preloaded with `node --import`: requests meant for commet.co go to $COMMET_BASE_URL instead.
// Only the host changes; the SDK, its path, headers and body stay as they are.
const target = new URL(process.env.COMMET_BASE_URL);
const send = globalThis.fetch;

globalThis.fetch = (input, init) => {
  const url = new URL(input instanceof Request ? input.url : input);
  if (url.hostname !== "commet.co" && !url.hostname.endsWith(".commet.co")) return send(input, init);
  url.protocol = target.protocol;
  url.host = target.host;
  return send(input instanceof Request ? new Request(url, input) : url, init);
};
