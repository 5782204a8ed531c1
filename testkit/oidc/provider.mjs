// A real provider of OpenID Connect for the tests: oidc-provider with its forms, on a free port of 127.0.0.1.
//
// usage: node provider.mjs MODULES REDIRECT_URI SECONDS
// Prints its issuer as the first line; ends by itself after SECONDS. Any password is right; the user's groups are
// what follows the name's first dot: "ada.sre" is in the group sre.

import http from 'node:http';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, redirectUri, seconds] = process.argv.slice(2);
setTimeout(() => process.exit(0), Number(seconds) * 1000).unref();

const library = path.join(modules, 'oidc-provider', 'lib', 'index.js');
const { Provider } = await import(pathToFileURL(library));

const server = http.createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'infratrack',
      client_secret: 'a secret: of the rig/+%',
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code'],
      response_types: ['code'],
      require_auth_time: true,
    },
  ],
  claims: { openid: ['sub'], profile: ['preferred_username', 'groups'], email: ['email'] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: async () => ({
      sub: id,
      preferred_username: id,
      email: `${id}@example.org`,
      groups: id.split('.').slice(1),
    }),
  }),
  features: { devInteractions: { enabled: true } },
  pkce: { required: () => true },
  cookies: { keys: ['of the rig'] },
});
server.on('request', provider.callback());
console.log(issuer);
