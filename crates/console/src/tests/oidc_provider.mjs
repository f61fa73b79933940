// A real identity provider for tests: npm's oidc-provider. It says where it is, waits for one line with the client that it is to
// know, and says that it is ready; the next lines change its keys, or end it.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(process.argv[2] + "/");
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));
const people = {
  ada: { name: "Ada Lovelace", groups: ["mdm-admins", "everybody"] },
  ben: { name: "Ben", groups: ["it-support"] },
  cleo: { name: "Cleo", groups: [] },
  dora: { name: "Dora", groups: ["acme-staff", "everybody"] },
  emil: { name: "Emil", groups: ["acme-staff", "beta-staff"] },
};
const server = createServer();
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const issuer = `http://127.0.0.1:${server.address().port}`;
const say = (what) => console.log(JSON.stringify(what));
const key = (kid) => {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid, use: "sig", alg: "RS256" };
};

let client;
let handle;
const begin = (kid) => {
  const provider = new Provider(issuer, {
    jwks: { keys: [key(kid)] },
    clients: [client],
    scopes: ["openid", "profile", "groups"],
    claims: { openid: ["sub"], profile: ["name", "preferred_username"], groups: ["groups"] },
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    cookies: { keys: [randomBytes(16).toString("hex")] },
    // It does not go to addresses of its own machine, where this server is in a test.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
    features: {
      devInteractions: { enabled: true },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: { enabled: true },
    },
    findAccount: (_context, id) => ({
      accountId: id,
      claims: async () => ({ sub: id, preferred_username: `${id}@example.com`, ...(people[id] ?? { name: id, groups: [] }) }),
    }),
  });
  provider.on("server_error", (_context, error) => console.error(error));
  provider.on("backchannel.error", (_context, error) => console.error(error));
  handle = provider.callback();
};
server.on("request", (request, response) => handle(request, response));
say({ issuer });
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  if (order.client) client = order.client;
  begin(order.kid);
  say({ ready: order.kid });
}
process.exit(0);
