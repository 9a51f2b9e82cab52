/** Asks the gateway for the status of an id that nobody has: any answer but a refused login shows that it can be asked. */
import type { Config } from '../settings.ts';
import { clearGateways, tlsMeaning } from '../gateway/certificates.ts';
import { currentCredentials } from '../gateway/credentials.ts';
import { createGateway } from '../gateway/client.ts';
import { outcomeOf, type Outcome } from '../poller/outcome.ts';
import { fail, ok, warn, type Finding } from './check.ts';

const NOBODYS_ID = '1000001';
const CHECK_NETWORK = 'check IP2SMS_URL and IP2SMS_STATUS_URL, and that this host may connect there';
const CHECK_ADDRESS = 'check IP2SMS_STATUS_URL and IP2SMS_FORMAT';

export async function askGateway(config: Config, env: NodeJS.ProcessEnv): Promise<Finding> {
  const gateway = createGateway(config, () => currentCredentials(config, env));
  try {
    const finding = findingOf(outcomeOf(await gateway.askStatus(NOBODYS_ID), NOBODYS_ID), config);
    const clear = clearGateways(config);
    if (finding.level !== 'ok' || clear.length === 0) return finding;
    return warn(
      `${finding.says}, and login and ids of SMS go there in clear text`,
      `use https:// in ${clear.join(' and ')}`,
    );
  } finally {
    await gateway.close();
  }
}

export function findingOf({ result, why, cause, busy }: Outcome, config: Pick<Config, 'IP2SMS_TIMEOUT_MS'>): Finding {
  if (busy === true) return warn('it is rate limiting: it asks for a pause');
  const tls = tlsMeaning(cause);
  switch (result) {
    case 'unauthorized':
      return fail('it refuses the login', 'check IP2SMS_LOGIN and IP2SMS_PASSWORD');
    case 'timeout':
      return fail(`no answer within ${config.IP2SMS_TIMEOUT_MS} ms`, CHECK_NETWORK);
    case 'network':
      if (tls !== undefined) return fail(tls.says, tls.hint);
      return fail(`no connection${cause === undefined ? '' : ` (${cause})`}`, CHECK_NETWORK);
    case 'http_5xx':
      return warn('it answers 5xx: it has trouble of its own now');
    case 'http_4xx':
      return warn(
        'it answers a question about a made-up id with HTTP 4xx: either it does so for ids that it does not know, or nothing that knows SMS is at that address',
        CHECK_ADDRESS,
      );
    case 'protocol':
      if (why !== 'gateway_error')
        return warn(`it answers with something else than a status (${why ?? 'unknown'})`, CHECK_ADDRESS);
      break;
    // "of another id", or of none, is what a made-up one may get
    case 'mismatch':
    case 'ok':
    case undefined:
  }
  return ok('it answers and takes the login');
}
